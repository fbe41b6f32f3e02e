"""In vLLM's processors: how many tokens a video keeps is decided here, and its placeholder gets that length.

Here are the pixels, so which patches are encoded is decided here too: once, for whatever ranks share the tower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptReplacement, PromptUpdateDetails

from .options import Options
from .selection import Shown, count, encoded

COUNT = "sharpv_count"
"""Name under which (kept tokens, all tokens) of a video travel with its pixels, and stay when those are dropped."""
ENCODED = "sharpv_encoded"
"""Name under which the places of a video that are encoded do, where not all are."""


class PrunedVideos:
    """Mixin before a model's multimodal processor.

    Attributes:
        beside: video tokens of a placeholder that are no visual tokens.
    """

    info: Any
    beside = 0

    def videos(self, inputs: Mapping[str, Any]) -> list[Shown]:
        """The videos of the processor's output."""
        raise NotImplementedError

    def video_token(self) -> int:
        """The id that stands for a visual token of a video."""
        token: int = self.info.get_hf_config().video_token_id
        return token

    @cached_property
    def sharpv(self) -> Options:
        """Read once: a processor lives as long as the engine."""
        options = Options.of(self.info.ctx.model_config)
        assert options is not None
        return options

    def _postprocess_hf_mm_data(self, hf_data: Any, hf_kwargs: Any, processed_data: Any) -> Any:
        outputs = super()._postprocess_hf_mm_data(hf_data, hf_kwargs, processed_data)  # type: ignore[misc]
        if "video_embeds" in outputs:
            raise ValueError("sharpv prunes videos from their pixels: it does not take video_embeds")
        if "pixel_values_videos" in outputs:
            videos = self.videos(outputs)
            counts = [count(each, self.sharpv) for each in videos]
            outputs[COUNT] = torch.tensor(
                [[kept, each.frames * each.tokens] for kept, each in zip(counts, videos, strict=True)]
            )
            if self.sharpv.config.encoding.rule is not None:
                outputs[ENCODED] = [encoded(each, self.sharpv, kept) for kept, each in zip(counts, videos, strict=True)]
        return outputs

    def get_dummy_mm_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """What vLLM profiles memory with: of its white videos all places but one are encoded, the most of a pass."""
        inputs = super().get_dummy_mm_inputs(*args, **kwargs)  # type: ignore[misc]
        for video in inputs["mm_kwargs"].get("video", []):
            if video is not None and ENCODED in video:
                video[ENCODED].data[:] = True
                video[ENCODED].data[1:][-1:, -1:] = False
        return inputs

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        fields = super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs)  # type: ignore[misc]
        ours = MultiModalFieldConfig.batched("video", keep_on_cpu=True)
        return {**fields, COUNT: ours} | ({} if self.sharpv.config.encoding.rule is None else {ENCODED: ours})

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Sequence[Any]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)  # type: ignore[misc]
        return [self._shortened(each, out_mm_kwargs) if each.modality == "video" else each for each in updates]

    def _shortened(self, update: PromptReplacement, out_mm_kwargs: Any) -> PromptReplacement:
        """The same placeholder with as many video tokens as are kept, all where the first one stood."""
        content, token = update.replacement, self.video_token()

        def replacement(item: int) -> PromptUpdateDetails[Any]:
            before = content(item) if callable(content) else content
            full = list(before.full if isinstance(before, PromptUpdateDetails) else before)
            kept = int(out_mm_kwargs["video"][item][COUNT].data[0]) + self.beside
            first = full.index(token)
            rest = [each for each in full[first:] if each != token]
            return PromptUpdateDetails.from_seq([*full[:first], *[token] * kept, *rest])

        return replace(update, replacement=replacement)
