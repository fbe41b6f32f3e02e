"""What vLLM's adaptive mode estimates: the paper's count from pixels in the place of features.

    python benchmarks/pixel_estimate.py [--videos 300] [--clips FOLDER]

Both counts of each video of pocket's evaluation, and, with a folder of clips, of each of them through pocket's tower.
Writes docs/results/pixel_estimate.{md,json}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from timing import publish
from torch import Tensor

from sharpv import pocket, video
from sharpv.importance import frame_retention, surroundings
from sharpv.pocket.drawing import SIZE
from sharpv.pocket.evaluate import evaluation_set
from sharpv.pocket.model import frame_features, pixel_values
from sharpv.vllm.selection import shown_pictures


@torch.no_grad()
def shares(model: Any, pixels: Tensor) -> tuple[float, float]:
    """The share of its tokens that a video asks for: by its features, by its pixels."""
    vision = model.config.vision_config
    looks = shown_pictures(pixels, vision.patch_size, stride=2).looks()
    by_features = frame_retention(*surroundings(frame_features(model, pixels)))
    return float(by_features.mean()), float(frame_retention(*surroundings(looks)).mean())


def main(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 300,
    clips: Annotated[Path | None, typer.Option(help="A folder of real clips too.")] = None,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    model, _ = pocket.load()
    evaluation = evaluation_set(videos, frames)
    both = {"pocket's evaluation": [shares(model, pixel_values(evaluation.video(index))) for index in range(videos)]}
    names: list[str] = []
    if clips is not None:
        paths = sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".webm", ".mkv"))
        names = [path.name for path in paths]
        both["real clips"] = [shares(model, pixel_values(squares(path, frames))) for path in paths]
    lines = [
        "# How many tokens: from pixels, and from features",
        "",
        f"Videos of {frames} frames. The paper's count needs features, which vLLM has only after a prompt's length is "
        "fixed; its adaptive mode applies the same rule to the pixels under each token. Share of a video's tokens that "
        f"is kept, as means; features are those of pocket's tower. Pocket: the first {videos} evaluation videos; "
        f"real: {len(names)} clips, cut to squares of {SIZE} pixels. The gain is the one at which the means agree; the "
        "error is that of a video's share at that gain, in points. Written by `python benchmarks/pixel_estimate.py`.",
        "",
        "| | videos | by features | by pixels | correlation | gain | mean error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    facts: dict[str, Any] = {"frames": frames}
    for title, pairs in both.items():
        features, pixels = np.array(pairs).T
        gain = features.mean() / pixels.mean()
        error = float(np.abs(np.minimum(pixels * gain, 1) - features).mean())
        correlation = float(np.corrcoef(features, pixels)[0, 1])
        lines.append(
            f"| {title} | {len(pairs)} | {100 * features.mean():.1f} % | {100 * pixels.mean():.1f} % | "
            f"{correlation:.2f} | {gain:.2f} | {100 * error:.1f} |"
        )
        facts[title] = {"features": features.tolist(), "pixels": pixels.tolist(), "gain": float(gain)}
    if names:
        lines += ["", "| clip | by features | by pixels |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {100 * by_features:.1f} % | {100 * by_pixels:.1f} % |"
            for name, (by_features, by_pixels) in zip(names, both["real clips"], strict=True)
        ]
    publish("pixel_estimate", lines, {**facts, "clips": names})


def squares(path: Path, frames: int) -> np.ndarray:
    """Frames of a clip, their middle square scaled to pocket's size, uint8 (frames, SIZE, SIZE, 3)."""
    pixels = torch.from_numpy(video.read(path, frames=frames).frames).permute(0, 3, 1, 2).float()
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    scaled = torch.nn.functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    typer.run(main)
