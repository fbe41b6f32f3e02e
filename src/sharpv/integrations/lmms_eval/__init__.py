"""sharpv in lmms-eval: ``lmms-eval --model sharpv --model_args pretrained=...,method=sharpv,retention=0.25``.

Found by lmms-eval through the entry point ``lmms_eval.models``; light to import, since whatever raises here is
swallowed there. See docs/how-to/evaluate.md.
"""

from __future__ import annotations

from typing import Any


def manifests() -> list[Any]:
    """What lmms-eval asks an installed package for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id="sharpv", chat_class_path="sharpv.integrations.lmms_eval.model.SharpVModel")]
