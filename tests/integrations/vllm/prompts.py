"""The prompts that every engine is asked, and what transformers with this library answers to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOKENS = 5


@dataclass(frozen=True)
class Prompt:
    """A prompt's parts: texts, and clips by their number of frames (an image has one), and how much of them changes."""

    parts: tuple[str | int, ...]
    change: float = 0.3

    def clips(self) -> list[np.ndarray]:
        """(T, H, W, 3) uint8 each."""
        frames = [part for part in self.parts if isinstance(part, int)]
        return [clip(count, index, self.change) for index, count in enumerate(frames)]


PROMPTS = {
    "video": Prompt(("What is this?", 8)),
    "long video": Prompt(("Look:", 12, "What happens?")),
    "text": Prompt(("Only text.",)),
    "image": Prompt(("See", 1, "now")),
    "image, video": Prompt((1, "before", 8, "after")),
    "video, image": Prompt((6, "before", 1, "after")),
    "two videos": Prompt((6, "and", 6, "differ?")),
    "videos side by side": Prompt((6, 6, "which?")),
    "two lengths": Prompt((4, "and", 10, "differ?")),
}


def clip(frames: int, seed: int, change: float) -> np.ndarray:
    """Blocks of colour of which this share changes from frame to frame.

    96 pixels a side, 6 tokens for Qwen: transformers 5 goes on behind a video of Qwen2.5-VL after its height or width,
    vLLM, like the model's authors, after its time too; here both are the same.
    """
    rng = np.random.default_rng([frames, seed])
    still = rng.integers(0, 255, (1, 12, 12, 3))
    moving = np.where(rng.random((frames, 12, 12, 1)) < change, rng.integers(0, 255, (frames, 12, 12, 3)), still)
    return np.kron(moving, np.ones((1, 8, 8, 1))).astype(np.uint8)


def metadata(frames: int, fps: float = 2.0) -> dict[str, Any]:
    """What a decoder knows of such a clip."""
    return {
        "fps": fps, "duration": frames / fps, "total_num_frames": frames, "frames_indices": list(range(frames)),
        "video_backend": "opencv", "do_sample_frames": False,
    }  # fmt: skip


def text_of(prompt: Prompt, name: str) -> str:
    """The prompt with its placeholders, as both sides tokenise it."""
    start, end = ("", "") if name == "llava_onevision" else ("<|vision_start|>", "<|vision_end|>")
    marks = {True: f"{start}<|image_pad|>{end}", False: f"{start}<|video_pad|>{end}"}
    body = "".join(part if isinstance(part, str) else marks[part == 1] for part in prompt.parts)
    return f"user:{body}\nassistant:"


def for_vllm(prompt: Prompt, name: str, fps: float = 2.0) -> dict[str, Any]:
    """What ``LLM.generate`` takes."""
    media: dict[str, list[Any]] = {}
    for each in prompt.clips():
        if len(each) == 1:
            media.setdefault("image", []).append(each[0])
        else:
            video = each if name == "llava_onevision" else (each, metadata(len(each), fps))
            media.setdefault("video", []).append(video)
    return {"prompt": text_of(prompt, name), "multi_modal_data": media}


@dataclass
class Answer:
    """What a model says to a prompt: token ids, the first token's log-probabilities, and its prompt's positions."""

    tokens: list[int]
    logprobs: torch.Tensor
    positions: torch.Tensor
    """(3, prompt), or (prompt,) where a model has one position a token."""
    length: int = 0
    """Tokens of the prompt, and how many of them were in the prefix cache."""
    cached: int = 0

    def agrees(self, other: Answer) -> bool:
        """The same tokens, and the same log-probabilities where both know them."""
        both = ~(self.logprobs.isnan() | other.logprobs.isnan())
        return self.tokens == other.tokens and bool(
            torch.isclose(self.logprobs[both], other.logprobs[both], atol=1e-4, rtol=0).all()
        )


def ask(engine: Any, prompts: list[Prompt], name: str, fps: float = 2.0) -> list[Answer]:
    """What a vLLM engine answers to prompts that it is given together; positions are those of one prompt alone."""
    from vllm import SamplingParams

    greedy = SamplingParams(max_tokens=TOKENS, temperature=0, logprobs=8, ignore_eos=True)
    seen: list[torch.Tensor] = []
    hook = model_of(engine).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["positions"].clone()), with_kwargs=True
    )
    try:
        outputs = engine.generate([for_vllm(prompt, name, fps) for prompt in prompts], greedy, use_tqdm=False)
    finally:
        hook.remove()
    answers = []
    for output in outputs:
        length, cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
        logprobs = torch.full((vocabulary(engine),), torch.nan)
        for token, value in output.outputs[0].logprobs[0].items():
            logprobs[token] = value.logprob
        positions = torch.cat(seen, dim=-1)[..., : length - cached]
        answers.append(Answer(list(output.outputs[0].token_ids), logprobs, positions, length, cached))
    return answers


def model_of(engine: Any) -> Any:
    """The model of an engine in this process."""
    return engine.llm_engine.model_executor.driver_worker.worker.model_runner.model


def vocabulary(engine: Any) -> int:
    """Number of logits."""
    return int(engine.llm_engine.model_config.get_vocab_size())


class Library:
    """Transformers' model with this library's pruning at a fixed retention."""

    def __init__(self, folder: Path, name: str, retention: float, method: str = "sharpv", **options: Any) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        import sharpv

        self.name = name
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.pruning = sharpv.apply(self.model, method, retention=retention, **options)
        self.seen: list[torch.Tensor] = []
        self.model.model.language_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.seen.append(kwargs["position_ids"])

    @torch.no_grad()
    def answer(self, prompt: Prompt) -> Answer:
        """Greedy, TOKENS tokens."""
        clips = prompt.clips()
        videos = [each for each in clips if len(each) > 1]
        inputs: dict[str, Any] = {}
        if videos:
            inputs["videos"] = videos
            if self.name != "llava_onevision":
                inputs["video_metadata"] = [
                    {key: value for key, value in metadata(len(each)).items() if key != "do_sample_frames"}
                    for each in videos
                ]
                inputs["do_sample_frames"] = False
        images = [each[0] for each in clips if len(each) == 1]
        if images:
            inputs["images"] = images
        inputs = self.processor(text=[text_of(prompt, self.name)], return_tensors="pt", **inputs)
        self.seen.clear()
        out = self.model.generate(
            **inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        positions = self.seen[0][-3:, 0] if self.seen[0].dim() == 3 else self.seen[0][0]
        return Answer(
            out.sequences[0, -TOKENS:].tolist(), out.logits[0][0].log_softmax(-1), positions, positions.shape[-1]
        )
