"""Other programs that run sharpv: vLLM and lmms-eval, an extra each. They import it; nothing here is imported by it."""
