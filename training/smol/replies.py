"""Text-only replies: what SmolLM2 said before training, to see and to limit what it forgets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from sharpv.evaluation.packing import IGNORE
from sharpv_smol.language import OPENING, load_language
from sharpv_smol.model import in_bfloat16, without_lora

from .prompts import EVALUATION

REPLY_TOKENS = 40
IMAGINED, PROMPT_TOKENS = 2400, 24
FIRST_WORDS = (
    "What", "How", "Who", "Why", "Which", "When", "Where", "Is", "Can", "Name", "List", "Give", "Write", "Explain",
    "Describe", "Suggest", "Tell", "Translate",
)  # fmt: skip
TEMPERATURE = 0.8


class Replies:
    """What SmolLM2 said before training, to the prompts that measure and to prompts of its own, which train."""

    def __init__(self, path: Path, words: PreTrainedTokenizerFast, seed: int = 0, fast: bool = False) -> None:
        self.words = words
        if not path.exists():
            language = load_language()
            said = {"measured": answer_all(language, words, list(EVALUATION))}
            if fast:
                in_bfloat16(language.parameters())
            torch.manual_seed(seed)
            own = imagine(language, words, IMAGINED)
            said["imagined"] = answer_all(language, words, own, do_sample=True, temperature=TEMPERATURE, top_k=0)
            fresh = path.with_suffix(".tmp")
            fresh.write_text(json.dumps(said))
            fresh.replace(path)
        said = json.loads(path.read_text())
        self.measured: dict[str, list[int]] = said["measured"]
        self.imagined: dict[str, list[int]] = said["imagined"]

    def loss(self, model: LlavaOnevisionForConditionalGeneration, prompts: Sequence[str]) -> Tensor:
        """Mean cross entropy of the tokens of the replies to these prompts."""
        logits, target = self._logits(model, {prompt: self.measured[prompt] for prompt in prompts})
        return functional.cross_entropy(logits, target)

    def drift(self, model: LlavaOnevisionForConditionalGeneration, rng: np.random.Generator, count: int) -> Tensor:
        """Mean divergence KL(before || now) per token of the replies to ``count`` imagined prompts, in nats.

        0 while nothing has been learned. A loss on the tokens themselves would be driven below what it was before, by
        learning them by heart.
        """
        prompts = list(self.imagined)
        said = {prompts[i]: self.imagined[prompts[i]] for i in rng.choice(len(prompts), count, replace=False)}
        with torch.no_grad(), without_lora(model):
            before = functional.log_softmax(self._logits(model, said)[0], dim=-1)
        now = functional.log_softmax(self._logits(model, said)[0], dim=-1)
        return functional.kl_div(now, before, log_target=True, reduction="batchmean")

    @torch.no_grad()
    def read(self, model: LlavaOnevisionForConditionalGeneration, count: int) -> None:
        """Run the model over ``count`` of the imagined conversations, one by one and so without padding."""
        prompts = list(self.imagined)  # sorted by their first words
        for prompt in prompts[:: max(1, len(prompts) // count)][:count]:
            self._logits(model, {prompt: self.imagined[prompt]})

    def _logits(
        self, model: LlavaOnevisionForConditionalGeneration, said: dict[str, list[int]]
    ) -> tuple[Tensor, Tensor]:
        """Logits at the replies' tokens, (tokens, vocabulary) in float32, and the tokens."""
        rows = [(chat_ids(self.words, prompt), reply) for prompt, reply in said.items()]
        width = max(len(asked) + len(reply) for asked, reply in rows)
        ids = torch.full((len(rows), width), self.words.eos_token_id)
        target = torch.full_like(ids, IGNORE)
        for row, (asked, reply) in enumerate(rows):
            ids[row, : len(asked) + len(reply)] = torch.tensor(asked + reply)
            target[row, len(asked) : len(asked) + len(reply)] = torch.tensor(reply)
        ids, target = ids.to(model.device), target.to(model.device)
        hidden = model.model.language_model(
            inputs_embeds=model.model.get_input_embeddings()(ids), use_cache=False
        ).last_hidden_state[:, :-1]
        wanted = target[:, 1:] != IGNORE
        return model.lm_head(hidden[wanted]).float(), target[:, 1:][wanted]


def chat_ids(words: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Token ids of one user's turn and the beginning of the assistant's."""
    turn = [{"role": "user", "content": prompt}]
    ids: list[int] = words.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
    return ids


@torch.no_grad()
def answer_all(
    language: LlamaForCausalLM, words: PreTrainedTokenizerFast, prompts: list[str], batch: int = 100, **sampling: Any
) -> dict[str, list[int]]:
    """Replies of at most REPLY_TOKENS tokens, as ids; greedy unless told otherwise."""
    end, said = words.convert_tokens_to_ids("<|im_end|>"), {}
    options = {"max_new_tokens": REPLY_TOKENS, "do_sample": False, "eos_token_id": end, "pad_token_id": end, **sampling}
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        texts = [words.decode(chat_ids(words, prompt)) for prompt in part]
        inputs = words(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        out = language.generate(**inputs, **options)
        for prompt, ids in zip(part, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            said[prompt] = ids[: ids.index(end) + 1] if end in ids else ids
    return said


@torch.no_grad()
def imagine(language: LlamaForCausalLM, words: PreTrainedTokenizerFast, count: int) -> list[str]:
    """What SmolLM2 takes a user to ask, up to the first full stop or question mark; about ``count`` different prompts.

    That a tuned model makes up its users' turns when it is given nothing but the template is Magpie's observation
    (https://arxiv.org/abs/2406.08464). Here the first word is given too: left alone it writes long requests.
    """
    prompts: dict[str, None] = {}
    each = -(-count // len(FIRST_WORDS))
    for first in FIRST_WORDS:
        given = words(OPENING + first, add_special_tokens=False, return_tensors="pt")["input_ids"].expand(each, -1)
        out = language.generate(
            input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=PROMPT_TOKENS, do_sample=True,
            temperature=TEMPERATURE, top_k=0, pad_token_id=words.pad_token_id,
        )  # fmt: skip
        for text in words.batch_decode(out[:, given.shape[1] :]):
            sentence = re.match(r"[^?.\n<]+[?.]?", text)
            if sentence:
                prompts[first + sentence[0]] = None
    return list(prompts)
