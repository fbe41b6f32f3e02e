"""Text-only replies: what SmolLM2 said before training, to see and to limit what it forgets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from ..pocket.packing import IGNORE
from .language import SYSTEM, load_language
from .model import without_lora
from .prompts import EVALUATION

REPLY_TOKENS = 40
IMAGINED, IMAGINED_TOKENS = 500, 80
Row = tuple[list[int], list[int]]
"""Token ids that are given, and those that follow."""


class Replies:
    """What SmolLM2 said before training: its replies to the prompts that measure, and talk of its own that trains."""

    def __init__(self, path: Path, words: PreTrainedTokenizerFast, seed: int = 0) -> None:
        self.words = words
        if not path.exists():
            language = load_language()
            answers = answer_all(language, words, list(EVALUATION))
            path.write_text(json.dumps({"answers": answers, "imagined": imagine(language, words, IMAGINED, seed)}))
        said = json.loads(path.read_text())
        self.answers: dict[str, list[int]] = said["answers"]
        self.imagined: list[list[int]] = said["imagined"]

    def loss(self, model: LlavaOnevisionForConditionalGeneration, prompts: Sequence[str]) -> Tensor:
        """Mean cross entropy of the tokens of the replies to these prompts."""
        rows = [(chat_ids(self.words, prompt), self.answers[prompt]) for prompt in prompts]
        logits, target = self._logits(model, rows)
        return functional.cross_entropy(logits, target)

    def drift(self, model: LlavaOnevisionForConditionalGeneration, rng: np.random.Generator, count: int) -> Tensor:
        """Mean divergence KL(before || now) per token of ``count`` imagined conversations, in nats.

        0 while nothing has been learned. A loss on the tokens themselves would be driven below what it was before, by
        learning them by heart.
        """
        picked = rng.choice(len(self.imagined), count, replace=False)
        rows = [(opening(self.words), self.imagined[index]) for index in picked]
        with torch.no_grad(), without_lora(model):
            before = functional.log_softmax(self._logits(model, rows)[0], dim=-1)
        now = functional.log_softmax(self._logits(model, rows)[0], dim=-1)
        return functional.kl_div(now, before, log_target=True, reduction="batchmean")

    def _logits(self, model: LlavaOnevisionForConditionalGeneration, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Logits at the tokens that follow, (tokens, vocabulary) in float32, and the tokens."""
        width = max(len(given) + len(said) for given, said in rows)
        ids = torch.full((len(rows), width), self.words.eos_token_id)
        target = torch.full_like(ids, IGNORE)
        for row, (given, said) in enumerate(rows):
            ids[row, : len(given) + len(said)] = torch.tensor(given + said)
            target[row, len(given) : len(given) + len(said)] = torch.tensor(said)
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


def opening(words: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of a conversation up to where the user speaks."""
    text = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    ids: list[int] = words(text, add_special_tokens=False)["input_ids"]
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


@torch.no_grad()
def imagine(
    language: LlamaForCausalLM, words: PreTrainedTokenizerFast, count: int, seed: int, batch: int = 100
) -> list[list[int]]:
    """What SmolLM2 takes a user to ask, and its own reply: up to IMAGINED_TOKENS sampled ids of each conversation.

    That a tuned model makes up its users' turns when it is given nothing but the template is Magpie's observation
    (https://arxiv.org/abs/2406.08464).
    """
    torch.manual_seed(seed)
    start = torch.tensor(opening(words))
    end, stop = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    sampling = {"do_sample": True, "temperature": 0.8, "top_k": 0, "eos_token_id": stop, "pad_token_id": stop}
    talks: list[list[int]] = []
    while len(talks) < count:
        given = start.expand(min(batch, count - len(talks)), -1)
        out = language.generate(
            input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=IMAGINED_TOKENS, **sampling
        )
        for ids in out[:, len(start) :].tolist():
            turns = [place for place, token in enumerate(ids) if token in (end, stop)][:2]
            talks.append(ids[: turns[-1] + 1] if len(turns) == 2 else ids)
    return talks
