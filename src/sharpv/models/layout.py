"""How the feature rows of videos lie in what an encoder gives, and which of them are patches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import whole
from ..methods.budget import Present

FRAMES = "video_frames"
"""Extra input of the families that read video frames as images: for each video in prompt order its number of frames,
or, where still images stand beside them, the (start, stop) of its frames among all images."""
_ACCEPTED = f"{FRAMES} must hold numbers of frames or rising (start, stop) pairs"


@dataclass(frozen=True)
class Seen:
    """What of a clip's own pictures lies under a frame of tokens, by what the family's processor and tower do to them.

    Attributes:
        height, width: share of the tower's picture that the patches cover, from the top left corner. Where the patch
            size does not divide the picture's, a margin at the bottom and at the right is never read.
        cropped: the processor cuts the middle square out of a picture; otherwise it stretches all of it to its size.
        pictures: of the clip that make one frame of tokens, two on Qwen, the last one shown again where they do not
            divide. None: all of the clip's are averaged down to as many frames of tokens as there are.
    """

    height: float = 1.0
    width: float = 1.0
    cropped: bool = False
    pictures: int | None = 1

    @classmethod
    def of(cls, read: int, size: int, *, cropped: bool = False, pictures: int | None = 1) -> Seen:
        """A square tower that reads ``read`` of the ``size`` pixels of a side."""
        return cls(read / size, read / size, cropped, pictures)


@dataclass(frozen=True)
class Layout:
    """How one video's feature rows lie: for each frame ``leading`` rows and ``height * width`` patches in raster order,
    then ``trailing`` rows. Rows that are not patches (a class token, a newline) are never scored or dropped.

    ``present`` tells which patches have a placeholder in the prompt, where the model's own processor leaves some out;
    None: all. The other rows always have one. ``seen`` tells which pixels lie under the grid.
    """

    frames: int
    height: int
    width: int
    leading: int = 0
    trailing: int = 0
    present: Present | None = None
    seen: Seen = Seen()

    @classmethod
    def still(cls, rows: int) -> Layout:
        """Rows of still images that lie between a family's video frames: none is a patch of a video."""
        return cls(0, 0, 0, trailing=rows)

    @property
    def tokens_per_frame(self) -> int:
        return self.height * self.width

    @property
    def patches(self) -> int:
        """Patches that the prompt holds."""
        return self.frames * self.tokens_per_frame if self.present is None else self.present.count

    def there(self, device: torch.device) -> Present:
        """The patches that the prompt holds."""
        return self.present or Present.everywhere(self.frames, self.tokens_per_frame, device)

    @property
    def others(self) -> int:
        """Rows that are not patches."""
        return self.frames * self.leading + self.trailing

    @property
    def rows(self) -> int:
        """Rows that the encoder gives."""
        return self.frames * self.tokens_per_frame + self.others

    def frames_of(self, rows: Tensor) -> Tensor:
        """The rows ``(n, D)`` of the frames, those that lead them included: ``(T, leading + N, D)``."""
        return rows[: len(rows) - self.trailing].unflatten(0, (self.frames, self.leading + self.tokens_per_frame))

    def split(self, rows: Tensor) -> Tensor:
        """The patches of ``(n, D)`` feature rows as ``(T, N, D)``."""
        return self.frames_of(rows)[:, self.leading :]

    def replaced(self, rows: Tensor, patches: Tensor) -> Tensor:
        """The rows ``(n, D)`` with other patches ``(T, N, D)`` in their places."""
        rows = rows.clone()
        self.split(rows).copy_(patches)
        return rows

    def spread(self, patches: Tensor, others: bool) -> Tensor:
        """The inverse for a mask: ``(T, N)`` bool over patches to ``(n,)`` over rows, ``others`` where no patch is."""
        frames = torch.cat([patches.new_full((self.frames, self.leading), others), patches], dim=1).flatten()
        return torch.cat([frames, frames.new_full((self.trailing,), others)])

    def of_placeholders(self, rows: Tensor) -> Tensor:
        """A mask over the encoder's rows, ``(n,)``, as one over the placeholders in the prompt."""
        if self.present is None:
            return rows
        there = self.spread(self.present.mask, others=True)
        return rows[first_true(there, self.patches + self.others)]


def square_frames(
    side: int, frames: int, videos: int, seen: Seen, *, leading: int = 0, trailing: int = 0
) -> list[Layout]:
    """Layouts of equally large square frames, as towers of a fixed input size make them."""
    return [Layout(frames, side, side, leading, trailing, seen=seen)] * videos


def frame_spans(frames: Any) -> list[int | tuple[int, int]]:
    """:data:`FRAMES` as plain numbers and pairs, from a list, an array, a tensor, or one number for one video.

    Raises:
        ValueError: entries that are neither.
    """
    try:
        entries = _plain(frames)
        return [_span(entry) for entry in (entries if isinstance(entries, Iterable) else [entries])]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{_ACCEPTED}, got {frames!r}") from error


def _plain(value: Any) -> Any:
    """Arrays and tensors as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _span(entry: Any) -> int | tuple[int, int]:
    entry = _plain(entry)
    if not isinstance(entry, Iterable):
        return whole(FRAMES, entry)
    start, stop = entry
    return whole(FRAMES, _plain(start)), whole(FRAMES, _plain(stop))


def frames_as_images(side: int, frames: Any, rows: int | None, seen: Seen = Seen()) -> list[Layout]:
    """Layouts of square frames, and of the still images between them, from :data:`FRAMES`.

    Args:
        side: height and width of an image in tokens.
        frames: numbers of frames, which follow one another, or (start, stop) among the images; see
            :func:`frame_spans`.
        rows: how many rows all images have, if known.
        seen: what of a frame lies under its tokens.

    Raises:
        ValueError: entries that are no numbers of frames or overlap, or that do not fit the images.
    """
    layouts: list[Layout] = []
    spans = frame_spans(frames)
    end, size, mixed = 0, side * side, False
    for entry in spans:
        if isinstance(entry, int):
            start, stop = end, end + entry
        else:
            (start, stop), mixed = entry, True
        if not end <= start < stop:
            raise ValueError(f"{_ACCEPTED}, got {spans}")
        layouts += [Layout.still((start - end) * size), Layout(stop - start, side, side, seen=seen)]
        end = stop
    images = end if rows is None else rows // size
    if end > images or (end < images and not mixed):
        raise ValueError(f"{FRAMES}={spans} names {end} frames, but there are {images} images")
    return [layout for layout in (*layouts, Layout.still((images - end) * size)) if layout.rows]


def first_true(mask: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` True entries of a 1-D mask, in order, without asking the device how many there are."""
    return mask.long().argsort(descending=True, stable=True)[:count]
