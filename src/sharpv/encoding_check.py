"""What leaving patches out does to the features of one's own model and clip: the vision side run both ways.

Nobody can tell from here how a large trained tower takes it: one that gathers global content in a few tokens may read
more from a frame's other patches than those that this project could measure. So look before relying on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .config import Config
from .models import find_family, unwrapped
from .vision.asked import Encoding
from .vision.encoding import encode, require


@dataclass(frozen=True)
class EncodingCheck:
    """Features and kept tokens with some patches encoded, beside those of the full tower.

    Attributes:
        encoded: share of the patches that were encoded.
        error: mean over visual tokens of ``|a - b| / |b|``, where b is the full tower's feature.
        worst: the same error that 95 % of the tokens stay below.
        overlap: share of the tokens that the method keeps of the full tower's features which it keeps here too.
    """

    encoded: float
    error: float
    worst: float
    overlap: float

    def __str__(self) -> str:
        return (
            f"encoded {100 * self.encoded:.1f} % of the patches: features differ from the full tower's by "
            f"{100 * self.error:.1f} % on average, 95 % of them by less than {100 * self.worst:.1f} %; "
            f"{100 * self.overlap:.1f} % of the kept tokens are the same"
        )


@torch.no_grad()
def check_encoding(
    model: PreTrainedModel, inputs: Mapping[str, Any], config: Config | str = "sharpv", **options: Any
) -> EncodingCheck:
    """Run the vision side twice, with ``encode=`` and in full, and compare what comes of it.

    Args:
        model, inputs: as for :func:`sharpv.trim`, with a video among the inputs.
        config, options: as for :func:`sharpv.apply`.

    Raises:
        ValueError: no ``encode=``, no video, a method that has to know the question, or what :func:`sharpv.apply`
            refuses.

    >>> print(check_encoding(model, inputs, retention=0.25, encode="kept"))
    encoded 31.0 % of the patches: features differ from the full tower's by 4.1 % on average, ...
    """
    model = unwrapped(model)
    family, asked = find_family(model), Config.of(config, **options)
    require(family, asked.encoding)
    if asked.encoding.rule is None:
        raise ValueError("there is nothing to check: pass encode='changed' or 'kept'")
    if asked.first.needs_question:
        raise ValueError(f"method {asked.first.name!r} has to know the question: check with another one")
    inputs = family.own_names(inputs)
    if not family.has_video(inputs):
        raise ValueError("there is nothing to check: these inputs hold no video")
    some, _ = encode(model, family, asked.encoding, asked.budget, inputs)
    full, _ = encode(model, family, replace(asked.encoding, encode=Encoding().encode), asked.budget, inputs)
    errors: list[Tensor] = []
    same = kept = 0
    for layout, mine, whole in zip(full.layouts, some.patches, full.patches, strict=True):
        if not layout.frames:
            continue
        difference = torch.linalg.vector_norm(mine.float() - whole.float(), dim=-1)
        errors.append((difference / torch.linalg.vector_norm(whole.float(), dim=-1).clamp(min=1e-12)).flatten())
        keeps = [asked.first.pick(part, asked.budget, layout.there(part.device)).keep for part in (mine, whole)]
        same += int((keeps[0] & keeps[1]).sum())
        kept += int(keeps[1].sum())
    error = torch.cat(errors).cpu()
    plans = [plan.encoded.float().flatten() for plan in some.plans if plan is not None]
    share = float(torch.cat(plans).mean())
    return EncodingCheck(share, float(error.mean()), float(error.quantile(0.95)), same / max(kept, 1))
