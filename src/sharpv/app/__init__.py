"""The app: a clip, a question, and what was kept for the answer, in a browser; ``sharpv app`` starts it.

:mod:`.desk` asks the model and knows no interface, :mod:`.interface` is gradio's side and needs the extra ``app``.
"""
