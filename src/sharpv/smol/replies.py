"""Text-only replies: what SmolLM2 said before training, to see and to limit what it forgets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from ..pocket.packing import IGNORE
from .language import load_language
from .model import without_lora
from .prompts import EVALUATION, TRAINING

REPLY_TOKENS = 40


class Replies:
    """What SmolLM2 answered to text-only prompts before training, and the loss on it."""

    def __init__(self, path: Path, words: PreTrainedTokenizerFast) -> None:
        self.words = words
        if not path.exists():
            said = answer_all(load_language(), words, [*EVALUATION, *TRAINING])
            path.write_text(json.dumps(said))
        self.said: dict[str, list[int]] = json.loads(path.read_text())

    def loss(self, model: LlavaOnevisionForConditionalGeneration, prompts: Sequence[str]) -> Tensor:
        """Mean cross entropy of the replies' tokens."""
        logits, target = self._logits(model, prompts)
        return functional.cross_entropy(logits, target)

    def drift(self, model: LlavaOnevisionForConditionalGeneration, prompts: Sequence[str]) -> Tensor:
        """Mean divergence KL(before || now) of the replies' tokens, in nats: 0 while nothing has been learned.

        A loss on the replies themselves would be driven below what it was before, by learning them by heart.
        """
        with torch.no_grad(), without_lora(model):
            before = functional.log_softmax(self._logits(model, prompts)[0], dim=-1)
        now = functional.log_softmax(self._logits(model, prompts)[0], dim=-1)
        return functional.kl_div(now, before, log_target=True, reduction="batchmean")

    def _logits(self, model: LlavaOnevisionForConditionalGeneration, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits at the replies' tokens, (tokens, vocabulary), and the tokens."""
        rows = [(chat_ids(self.words, prompt), self.said[prompt]) for prompt in prompts]
        width = max(len(asked) + len(said) for asked, said in rows)
        ids = torch.full((len(rows), width), self.words.eos_token_id)
        target = torch.full_like(ids, IGNORE)
        for row, (asked, said) in enumerate(rows):
            ids[row, : len(asked) + len(said)] = torch.tensor(asked + said)
            target[row, len(asked) : len(asked) + len(said)] = torch.tensor(said)
        ids, target = ids.to(model.device), target.to(model.device)
        hidden = model.model.language_model(
            inputs_embeds=model.model.get_input_embeddings()(ids), use_cache=False
        ).last_hidden_state[:, :-1]
        wanted = target[:, 1:] != IGNORE
        return model.lm_head(hidden[wanted]), target[:, 1:][wanted]


def chat_ids(words: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Token ids of one user's turn and the beginning of the assistant's."""
    turn = [{"role": "user", "content": prompt}]
    ids: list[int] = words.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"]
    return ids


@torch.no_grad()
def answer_all(
    language: LlamaForCausalLM, words: PreTrainedTokenizerFast, prompts: list[str], batch: int = 20
) -> dict[str, list[int]]:
    """Greedy replies of at most REPLY_TOKENS tokens, as ids."""
    end, said = words.convert_tokens_to_ids("<|im_end|>"), {}
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        texts = [words.decode(chat_ids(words, prompt)) for prompt in part]
        inputs = words(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        out = language.generate(
            **inputs, max_new_tokens=REPLY_TOKENS, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        for prompt, ids in zip(part, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            said[prompt] = ids[: ids.index(end) + 1] if end in ids else ids
    return said
