"""Many questions behind one video: they share the visual prefix, and a block mask keeps them apart.

``[head, visual tokens, newline, question 1 + answer 1, question 2 + answer 2, ...]``; a question sees the
prefix and itself, and its positions continue the prefix as if it were alone. Hence the logits are those of one
prompt per question, at a fraction of the cost. How a prompt is worded around the video is the model's
:class:`Phrasing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..kvcache.cache import CACHE
from ..pocket.questions import Question
from ..pocket.tokens import ANSWER, BOS, EOS, build_tokenizer, vocabulary

if TYPE_CHECKING:
    from transformers import Cache, LlavaOnevisionForConditionalGeneration

IGNORE = -100
_NO_BLOCK = -1
_OPTION = re.compile(r"^(\([A-E]\)) .+$", re.MULTILINE)


@dataclass(frozen=True)
class Phrasing:
    """How a model's prompt stands around one video: token ids before it, text after it, and the tokenizer."""

    head: tuple[int, ...]
    encode: Callable[[list[str]], list[list[int]]]
    question: str
    answer: str


@cache
def pocket_phrasing() -> Phrasing:
    """``<bos> <video> question <ans> answer <eos>``."""
    words = build_tokenizer()
    return Phrasing(
        head=(vocabulary().index(BOS),),
        encode=lambda texts: words(texts)["input_ids"],
        question=f"{{}} {ANSWER}",
        answer=f"{{}} {EOS}",
    )


@dataclass(frozen=True)
class TokenisedQuestion:
    """Token ids of a question (to the point where the model speaks) and of its answer (to the end of its turn)."""

    family: str
    form: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    verdicts: tuple[tuple[int, int], ...] = ()
    """Of a multiple choice: the last token of each option, and the id of "yes" if it is the true one, else of "no"."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer) - 1


def tokenise(
    questions: Sequence[Question], phrasing: Phrasing | None = None, verdicts: bool = False
) -> list[TokenisedQuestion]:
    """Token ids of each question and its answer, in pocket's phrasing if no other is given.

    With ``verdicts`` the options of a multiple choice are judged too, which costs as much again.
    """
    phrasing = phrasing or pocket_phrasing()
    prompts = phrasing.encode([phrasing.question.format(question.prompt) for question in questions])
    answers = phrasing.encode([phrasing.answer.format(question.answer) for question in questions])
    return [
        TokenisedQuestion(
            question.family,
            question.form,
            tuple(prompt),
            tuple(answer),
            _verdicts(question, phrasing) if verdicts and question.form == "choice" else (),
        )
        for question, prompt, answer in zip(questions, prompts, answers, strict=True)
    ]


def _verdicts(question: Question, phrasing: Phrasing) -> tuple[tuple[int, int], ...]:
    before = phrasing.question.split("{}")[0]
    options = list(_OPTION.finditer(question.prompt))
    # no token reaches over the end of a line
    upto = phrasing.encode([before + question.prompt[: option.end()] for option in options])
    (yes, *_), (no, *_) = phrasing.encode(["yes", "no"])
    return tuple(
        (len(ids) - 1, yes if option[1] == question.answer else no) for ids, option in zip(upto, options, strict=True)
    )


@dataclass
class Packed:
    """Questions of a batch of videos laid end to end; all tensors are (videos, tokens)."""

    ids: Tensor
    block: Tensor
    """Which question a token belongs to; -1 is padding."""
    offset: Tensor
    """Position within the question."""
    target: Tensor
    """The next token where that is part of an answer, else IGNORE."""
    weight: Tensor
    """Weight of the target in the loss."""

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        return Packed(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def pack(
    questions: Sequence[Sequence[TokenisedQuestion]],
    weigh: Callable[[TokenisedQuestion], float] = lambda question: 1.0,
    hints: bool = False,
) -> Packed:
    """Lay the questions of each video end to end and pad to the longest video.

    ``weigh`` gives the weight of an answer's tokens in the loss. With ``hints`` there is a target at the end of each
    option of a multiple choice too: "yes" if it is the true one, else "no".
    """
    shape = (len(questions), max(sum(map(len, of_video)) for of_video in questions))
    packed = Packed(
        ids=torch.zeros(shape, dtype=torch.long),
        block=torch.full(shape, _NO_BLOCK),
        offset=torch.zeros(shape, dtype=torch.long),
        target=torch.full(shape, IGNORE),
        weight=torch.zeros(shape),
    )
    for row, of_video in enumerate(questions):
        start = 0
        for index, question in enumerate(of_video):
            stop = start + len(question)
            answer_start = start + len(question.prompt) - 1
            packed.ids[row, start:stop] = torch.tensor(question.prompt + question.answer[:-1])
            packed.block[row, start:stop] = index
            packed.offset[row, start:stop] = torch.arange(len(question))
            packed.target[row, answer_start:stop] = torch.tensor(question.answer)
            packed.weight[row, answer_start:stop] = weigh(question)
            for end, said in question.verdicts if hints else ():
                packed.target[row, start + end] = said
                packed.weight[row, start + end] = 1.0
            start = stop
    return packed


@dataclass
class Prefix:
    """The visual tokens that are kept. ``features`` (videos, kept, hidden), the others (videos, kept)."""

    features: Tensor
    positions: Tensor
    valid: Tensor
    """False where a video keeps fewer tokens than the others of the batch."""
    end: Tensor
    """Position of the newline token, (videos,)."""


def prefix_of(features: Tensor, keep: Tensor, positions: str = "original", head: int = 1) -> Prefix:
    """Gather the kept tokens of ``features`` (videos, tokens, hidden) under the mask ``keep`` (videos, tokens).

    With ``"original"`` positions a token stays where it is in the full prompt, with ``"packed"`` the gaps close.
    ``head`` is how many tokens stand before the video.
    """
    if positions not in ("original", "packed"):
        raise ValueError(f"positions must be 'original' or 'packed', got {positions!r}")
    counts = keep.sum(1)
    most = max(int(counts.max()), 1)
    index = keep.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    valid = torch.arange(most, device=keep.device) < counts[:, None]
    gathered = features.gather(1, index[..., None].expand(-1, -1, features.shape[-1]))
    if positions == "original":
        place, end = index + head, torch.full_like(counts, features.shape[1] + head)
    else:
        place, end = torch.arange(head, most + head, device=keep.device).expand_as(index), counts + head
    return Prefix(gathered, place, valid, end)


def attention_mask(prefix: Prefix, block: Tensor, head: int = 1) -> Tensor:
    """Boolean (videos, 1, tokens, tokens), True where a token may look."""
    videos = len(prefix.valid)
    ones = prefix.valid.new_ones(videos, head + 1)
    seen = torch.cat([ones[:, 1:], prefix.valid, ones[:, :1]], 1)
    start, total = seen.shape[1], seen.shape[1] + block.shape[1]
    allowed = torch.zeros(videos, total, total, dtype=torch.bool, device=block.device)
    allowed[:, :, :start] = seen[:, None]
    allowed[:, start:, start:] = block[:, :, None] == block[:, None]
    allowed = allowed.tril_()
    allowed.diagonal(dim1=1, dim2=2).fill_(True)
    return allowed[:, None]


def forward(
    model: LlavaOnevisionForConditionalGeneration,
    prefix: Prefix,
    packed: Packed,
    hidden_states: bool = False,
    phrasing: Phrasing | None = None,
    cache: Cache | None = None,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Run the text model: (hidden states of the question tokens, those of all tokens per layer if asked for).

    Keys and values go to an empty ``cache`` if one is given.
    """
    inner = model.model
    embed = inner.get_input_embeddings()
    videos, kept = prefix.valid.shape
    head = torch.tensor((phrasing or pocket_phrasing()).head, device=packed.ids.device).expand(videos, -1)
    newline = inner.image_newline.expand(videos, 1, -1)
    embeds = torch.cat([embed(head), prefix.features, newline, embed(packed.ids)], 1).to(embed.weight.dtype)
    end = prefix.end[:, None]
    start = torch.arange(head.shape[1], device=end.device).expand_as(head)
    places = torch.cat([start, prefix.positions, end, end + 1 + packed.offset], 1)
    output = inner.language_model(
        inputs_embeds=embeds,
        attention_mask=attention_mask(prefix, packed.block, head.shape[1]),
        position_ids=places,
        output_hidden_states=hidden_states,
        use_cache=cache is not None,
        **{CACHE: cache},
    )
    return output.last_hidden_state[:, head.shape[1] + kept + 1 :], output.hidden_states
