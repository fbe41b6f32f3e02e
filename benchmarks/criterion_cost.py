"""What deciding costs: prefill with each criterion of the second stage against prefill without it, in one run.

    python benchmarks/criterion_cost.py [--size 0.5b] [--layers 24] [--frames 8] [--device cuda] [--dtype float16]

The language model has a real one's widths and random weights, the vision tower is a stub: its time would hide what is
measured. All visual tokens are kept. Rounds are interleaved, each in a new order; the ratio is the median over rounds
of a round's time to the same round's without a second stage, with the middle half in brackets. Writes
docs/results/criterion_cost.{md,json}.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
import typer
from timing import Ratio, interleaved, machine, publish
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

import sharpv
from sharpv import Contribution, Layers

SIZES = {  # Qwen2-0.5B and Qwen2-7B, the language models of LLaVA-OneVision
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2),
    "7b": dict(hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4),
}
VIDEO, VOCABULARY, QUESTION = 100, 1000, 24


def criteria(layers: int) -> dict[str, Any]:
    """Set so that nothing is forgotten: what is timed is deciding."""
    return {
        "no second stage": None,
        "paper's cosine": -1.0,
        "contribution, 1 row": Contribution(threshold=1e-9, rows=1),
        "contribution, 4 rows": Contribution(threshold=1e-9, rows=4),
        "named layers": Layers(tuple(range(layers))),
    }


def build(size: str, layers: int) -> LlavaOnevisionForConditionalGeneration:
    text = Qwen2Config(**SIZES[size], num_hidden_layers=layers, vocab_size=VOCABULARY, max_position_embeddings=32768)
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=384, patch_size=14
    )
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, video_token_index=VIDEO, image_token_index=VIDEO + 1,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    torch.manual_seed(0)
    return LlavaOnevisionForConditionalGeneration(config).eval()


def main(
    size: Annotated[str, typer.Option(help="0.5b or 7b.")] = "0.5b",
    layers: Annotated[int, typer.Option(help="Decoder layers; ratios do not depend on them.")] = 6,
    frames: Annotated[int, typer.Option(help="Frames of 196 tokens.")] = 8,
    rounds: Annotated[int, typer.Option(help="Times that each is run.")] = 7,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the model.")] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    torch.set_num_threads(threads)
    model = build(size, layers).to(device, getattr(torch, dtype))
    length = frames * 196 + 1
    ids = torch.cat([torch.arange(14), torch.full((length,), VIDEO), torch.arange(QUESTION)])[None].to(device)
    pixels = torch.randn(1, frames, 3, 384, 384, generator=torch.Generator().manual_seed(1)).to(device, model.dtype)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels}

    def prefill(criterion: Any) -> Any:
        @torch.no_grad()
        def run() -> None:
            with sharpv.apply(model, retention=1.0, memory=criterion):
                model(**inputs, use_cache=True, logits_to_keep=1)

        return run

    seconds = interleaved({name: prefill(criterion) for name, criterion in criteria(layers).items()}, rounds, device)
    where = machine(device, threads)
    lines = [
        "# What deciding costs at prefill",
        "",
        f"Prefill of {ids.shape[1]} tokens, {length - 1} of them visual and all kept, on {layers} decoder layers of "
        f"the width of LLaVA-OneVision {size.upper()} (random weights, stub vision tower), {dtype}, {where}; "
        f"median of {rounds} interleaved rounds, the middle half of them in brackets. Nothing "
        "is forgotten. Written by `python benchmarks/criterion_cost.py`.",
        "",
        "| criterion | prefill time to that without | seconds, this machine |",
        "| --- | --- | --- |",
    ]
    facts: dict[str, Any] = {"size": size, "layers": layers, "tokens": ids.shape[1], "device": where, "dtype": dtype}
    for name, own in seconds.items():
        ratio = Ratio.of(own, seconds["no second stage"])
        facts[name] = {**vars(ratio), "seconds": float(np.median(own))}
        lines.append(f"| {name} | {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] | {np.median(own):.3f} |")
    publish("criterion_cost", lines, facts)


if __name__ == "__main__":
    typer.run(main)
