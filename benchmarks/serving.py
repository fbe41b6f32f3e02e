"""Serving with vLLM on this CPU: pocket's answers through HTTP, and how many tokens pixels ask for.

    python benchmarks/serving.py accuracy [--videos 40]
    python benchmarks/serving.py pixels [--videos 300] [--clips FOLDER]

The first runs in vLLM's environment (``make test-vllm`` builds it), with PYTHONPATH=tests/integrations/vllm/site where
that is vLLM's CPU package. Pages go to docs/results. Requests a second: ``serving_speed.py``.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common import RESULTS, percent, publish, table

from sharpv import SharpV, pocket, read_video
from sharpv.evaluation.comparison import Row, keep_masks
from sharpv.evaluation.scoring import EvaluationSet, evaluation_set, extract_features, score
from sharpv.integrations.vllm.selection import pool_stride, shown_pictures
from sharpv.methods.importance import frame_retention, surroundings
from sharpv.pocket.drawing import SIZE
from sharpv.pocket.model import frame_features, pixel_values
from sharpv.pocket.questions import Question
from sharpv.pocket.world import write_clip

sys.path.append(str(Path(__file__).parents[1] / "tests" / "integrations" / "vllm"))

app = typer.Typer(add_completion=False)
POCKET = Path(pocket.__file__).parent / "checkpoint"
COMMON = (
    "--max-model-len", "4096", "--max-num-seqs", "8", "--limit-mm-per-prompt", '{"video": 1}',
    "--media-io-kwargs", '{"video": {"num_frames": -1}}',
)  # fmt: skip
BUDGET = ("--video-pruning-method", "sharpv", "--video-pruning-rate", "0.75")
ADAPTIVE = ("--video-pruning-rate", "0.5", "--hf-overrides", '{"sharpv": {"counting": "pixels"}}')


def question(client: Any, url: str, text: str, tokens: int) -> Any:
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="served", messages=messages, temperature=0, max_tokens=tokens)


# ----------------------------------------------------------------------------------------------------- accuracy


@dataclass(frozen=True)
class Decoded(EvaluationSet):
    """The evaluation's videos as a decoder gives them back: what the server sees, not what was drawn."""

    folder: Path

    @classmethod
    def of(cls, evaluation: EvaluationSet, folder: Path) -> Decoded:
        for index, episode in enumerate(evaluation.episodes):
            write_clip(episode, folder / f"{index}.mp4", fps=evaluation.frames, seconds=1, scale=1, noise=1.0)
        return cls(evaluation.frames, evaluation.episodes, evaluation.questions, folder)

    def video(self, index: int) -> np.ndarray:
        return read_video(self.folder / f"{index}.mp4", frames=self.frames).frames


@app.command()
def accuracy(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 40,
    clients: Annotated[int, typer.Option(help="Requests at a time.")] = 8,
) -> None:
    """Pocket's evaluation questions through HTTP, beside the library's answers in transformers."""
    import openai
    from server import data_url, serve
    from small import rename_as_4

    modes: dict[str, tuple[tuple[str, ...], Row]] = {
        "dense": ((), Row("dense")),
        "budget, kept 25 %": (BUDGET, Row("budget", SharpV(), 0.25)),
        "adaptive": (ADAPTIVE, Row("adaptive", SharpV())),
    }
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Decoded.of(evaluation_set(videos), Path(folder))
        model, _ = pocket.load()
        features = extract_features(model, evaluation)
        urls = [data_url(evaluation.folder / f"{index}.mp4") for index in range(videos)]
        asked = [(index, each) for index, of_video in enumerate(evaluation.questions) for each in of_video]
        rows: list[dict[str, Any]] = []
        checkpoint = Path(folder) / "pocket"
        shutil.copytree(POCKET, checkpoint)
        rename_as_4(checkpoint)  # as vLLM's own model, the dense one, loads it (docs/upstream/siglip-names.md)
        for name, (options, row) in modes.items():
            keep = None if row.method is None else keep_masks(row.method, features, row.retention)[0]
            in_library = [record.correct for record in score(model, evaluation, features, keep)]
            share = 1.0 if keep is None else float(keep.float().mean())
            with serve(checkpoint, "--dtype", "float32", *COMMON, *options) as address:
                client = openai.OpenAI(base_url=address, api_key="none", timeout=600)

                def answer(item: tuple[int, Question], client: Any = client) -> tuple[bool, int]:
                    reply = question(client, urls[item[0]], item[1].prompt, 80)
                    return same(reply.choices[0].message.content, item[1].answer), reply.usage.prompt_tokens

                with ThreadPoolExecutor(clients) as pool:
                    served = list(pool.map(answer, asked))
            through_http = [right for right, _ in served]
            of_video = np.array([index for index, _ in asked])
            gaps = np.array(through_http, float) - np.array(in_library, float)
            means = np.array([gaps[of_video == index].mean() for index in range(videos)])
            rows.append({
                "mode": name, "library": float(np.mean(in_library)), "http": float(np.mean(through_http)),
                "gap": float(100 * means.mean()), "half": float(196 * means.std(ddof=1) / len(means) ** 0.5),
                "same": float(np.mean(np.array(through_http) == np.array(in_library))),
                "kept_library": share, "prompt_tokens": float(np.mean([tokens for _, tokens in served])),
            })  # fmt: skip
            print(rows[-1], flush=True)
    lines = [
        "# Pocket through HTTP",
        "",
        f"{len(asked):,} questions on the first {videos} videos of the fixed evaluation, written as H.264 clips of 8 "
        f"frames and sent as data URLs to `vllm serve` ({versions()}), {clients} at a time; in transformers the "
        "library answers the same questions on the decoded clips. Mean exact match over questions; the difference in "
        "points with a 95 % interval, paired by video. In the adaptive mode vLLM's counts are estimates from pixels, "
        "the library's come from features. Written by `python benchmarks/serving.py accuracy`.",
        "",
        "| mode | transformers | vLLM | difference | same verdict | kept in transformers | prompt tokens in vLLM |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['mode']} | {r['library']:.3f} | {r['http']:.3f} | {r['gap']:+.1f} [{r['gap'] - r['half']:+.1f}, "
        f"{r['gap'] + r['half']:+.1f}] | {100 * r['same']:.1f} % | {100 * r['kept_library']:.1f} % | "
        f"{r['prompt_tokens']:.0f} |"
        for r in rows
    ]
    publish(RESULTS, "serving_accuracy", lines, {"videos": videos, "questions": len(asked), "rows": rows})


def same(said: str, true: str) -> bool:
    """Word for word."""
    return re.sub(r"\s+", " ", said).strip() == re.sub(r"\s+", " ", true).strip()


# ------------------------------------------------------------------------------------------------------- pixels


@app.command()
@torch.no_grad()
def pixels(
    videos: Annotated[int, typer.Option(help="The first n of the fixed evaluation videos.")] = 300,
    clips: Annotated[Path | None, typer.Option(help="A folder of real clips too.")] = None,
    frames: Annotated[int, typer.Option(help="Frames a video.")] = 8,
    out: Annotated[Path, typer.Option(help="Where pages go.")] = RESULTS,
) -> None:
    """What vLLM's counting from pixels estimates: the paper's count from pixels in the place of features."""
    model, _ = pocket.load()
    evaluation = evaluation_set(videos, frames)
    both = {"pocket's evaluation": [shares(model, pixel_values(evaluation.video(index))) for index in range(videos)]}
    paths: list[Path] = []
    if clips is not None:
        paths = sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".webm", ".mkv"))
        both["real clips"] = [shares(model, pixel_values(squares(path, frames))) for path in paths]
    rows, facts = [], {}
    for title, pairs in both.items():
        by_features, by_pixels = np.array(pairs).T
        gain = float(by_features.mean() / by_pixels.mean())
        error = float(np.abs(np.minimum(by_pixels * gain, 1) - by_features).mean())
        correlation = float(np.corrcoef(by_features, by_pixels)[0, 1])
        means = percent(by_features.mean()), percent(by_pixels.mean())
        rows.append([title, len(pairs), *means, f"{correlation:.2f}", f"{gain:.2f}", f"{100 * error:.1f}"])
        facts[title] = {"features": by_features.tolist(), "pixels": by_pixels.tolist(), "gain": gain}
    lines = [
        "# How many tokens: from pixels, and from features",
        "",
        f"Videos of {frames} frames. The paper's count needs features, which vLLM has only after a prompt's length is "
        "fixed; counting from pixels applies the same rule to the pixels under each token. Share of a video's tokens "
        f"that is kept, as means; features are those of pocket's tower. Pocket: the first {videos} evaluation videos; "
        f"real: {len(paths)} clips, cut to squares of {SIZE} pixels. The gain is the one at which the means agree; the "
        "error is that of a video's share at that gain, in points. Written by `python benchmarks/serving.py pixels`.",
        "",
        *table(["", "videos", "by features", "by pixels", "correlation", "gain", "mean error"], rows),
    ]
    if paths:
        cells = [[p.name, percent(f), percent(x)] for p, (f, x) in zip(paths, both["real clips"], strict=True)]
        lines += ["", *table(["clip", "by features", "by pixels"], cells)]
    publish(out, "pixel_estimate", lines, facts)


def shares(model: Any, shown: torch.Tensor) -> tuple[float, float]:
    """The share of its tokens that a video asks for: by its features, by its pixels."""
    looks = shown_pictures(shown, model.config.vision_config.patch_size, pool_stride(model.config)).looks()
    by_features = frame_retention(*surroundings(frame_features(model, shown)))
    return float(by_features.mean()), float(frame_retention(*surroundings(looks)).mean())


def squares(path: Path, frames: int) -> np.ndarray:
    """Frames of a clip, their middle square scaled to pocket's size, uint8 (frames, SIZE, SIZE, 3)."""
    shown = torch.from_numpy(read_video(path, frames=frames).frames).permute(0, 3, 1, 2).float()
    side = min(shown.shape[-2:])
    top, left = (shown.shape[-2] - side) // 2, (shown.shape[-1] - side) // 2
    square = shown[..., top : top + side, left : left + side]
    scaled = torch.nn.functional.interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def versions() -> str:
    import transformers
    import vllm

    return f"vLLM {vllm.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"


if __name__ == "__main__":
    app()
