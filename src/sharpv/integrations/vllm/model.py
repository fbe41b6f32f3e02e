"""What the models have in common: videos are encoded together, pruned one by one, and carry their positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from .encoding import require
from .options import Options
from .positions import Medium, full_positions, place, without_positions
from .processor import COUNT, ENCODED
from .selection import keep

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class PrunedModel:
    """Mixin before one of vLLM's models.

    Attributes:
        sharpv: how its videos are pruned.
        positions: "1d" or "mrope", as merging methods tell models apart.
        tower: the name of the vision tower.
    """

    sharpv: Options
    positions: ClassVar[str] = "mrope"
    tower: ClassVar[str] = "visual"

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        options = Options.of(vllm_config.model_config)
        assert options is not None
        self.sharpv = options
        self.encoder_budget = vllm_config.scheduler_config.max_num_encoder_input_tokens
        if options.config.encoding.rule is not None:
            tower: nn.Module = getattr(self, self.tower)
            require(tower)

    def video_rows(self, inputs: dict[str, Any], counts: list[int], encoded: Sequence[Tensor] | None) -> list[Tensor]:
        """The rows of each video of a batch, pruned to ``counts`` tokens, with their positions.

        ``encoded`` says of each video which of its places go through the tower; None: all.
        """
        raise NotImplementedError

    def media(self, ids: list[int], features: Iterable[Any]) -> Iterator[Medium]:
        """A prompt's images and videos, with the positions that their rows have in the full prompt."""
        raise NotImplementedError

    def video_token(self) -> int:
        """The id that stands for a visual token of a video."""
        token: int = self.config.video_token_id  # type: ignore[attr-defined]
        return token

    def choose(self, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Which of a video's ``(T, N, D)`` features are kept, and what they carry.

        Returns:
            Indices into its T * N tokens, ascending ``(count,)``, and the survivors' features ``(count, D)``.
        """
        selection = keep(features, count, self.sharpv)
        kept = selection.keep.flatten().nonzero().squeeze(1)
        merged = selection.features if self.sharpv.config.first.merges(self.positions) else None
        return kept, (features if merged is None else merged).flatten(0, 1)[kept]

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """The rows of each image or video of a batch; vLLM never mixes the two in one."""
        counts, encoded = kwargs.pop(COUNT, None), kwargs.pop(ENCODED, None)
        if counts is not None:
            plans = None if encoded is None else list(encoded)
            return tuple(self.video_rows(kwargs, [kept for kept, _ in counts.tolist()], plans))
        rows = super().embed_multimodal(**kwargs)  # type: ignore[misc]
        return tuple(without_positions(each) for each in rows)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: Any) -> tuple[Tensor, int]:
        """Positions of a prompt as far as they are known when it arrives, ``(3, tokens)``, and their delta."""
        in_order = sorted(mm_features, key=lambda each: each.mm_position.offset)
        return full_positions(len(input_tokens), self.media(input_tokens, in_order))

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """The rows of a chunk's media without their channels, and the prompt's positions with theirs."""
        return place(multimodal_embeddings, input_ids, self.video_token(), mrope_positions, num_computed_tokens)


def groups(sizes: Sequence[int], limit: int) -> Iterator[slice]:
    """Runs of videos that are encoded at once: of at most ``limit`` tokens before pruning, or one video alone.

    vLLM's scheduler counts what is left of a video, so that it hands over more of them than it means to encode.

    >>> list(groups([10, 10, 30, 5], 20))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield slice(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))
