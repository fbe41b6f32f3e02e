"""One prefill, many questions: a clip is read once, pruned, and asked about as often as one likes.

Import :class:`.session.Session`, also as :class:`sharpv.Session`.
"""

from .session import Session

__all__ = ["Session"]
