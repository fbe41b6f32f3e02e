"""A clip on disk to upright frames and true timestamps, with PyAV; import from this room.

:func:`read_video` reads, :class:`Clip` holds what came of it, :class:`VideoError` says why not.
"""

from __future__ import annotations

from .clip import Clip, read_video
from .decoding import VideoError

__all__ = ["Clip", "VideoError", "read_video"]
