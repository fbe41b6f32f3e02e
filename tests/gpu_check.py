"""The equivalence tests on a GPU: fused attention kernels and bfloat16, which the CPU suite cannot run.

    python tests/gpu_check.py [--device cuda] [--attention flash_attention_2 --attention sdpa] [--family NAME]

For each family (tiny, random weights) and kernel, in bfloat16: a pruned run, both stages, with every patch encoded and
with only those that changed, batch of one and padded batch, against the float32 run of the same model on the same
device with eager attention, teacher forced. The kernel's own error is measured beside it, on the unpruned model: a
pruned run must not be further off than twice that. Prints a table, writes docs/results/gpu_check.{md,json}, and ends
with exit code 1 if a row is off.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from common import RESULTS, publish  # noqa: E402 - lies with the benchmarks
from real_size import EveryOther  # noqa: E402

import sharpv  # noqa: E402
import tiny  # noqa: E402
from reference import stock  # noqa: E402
from sharpv.models import find_family  # noqa: E402

PROMPTS: list[list[tiny.Part]] = [[10, 11, tiny.Clip(1, frames=8), 12, 13], [10, tiny.Clip(2, frames=8), 15, 16, 17]]
NEW = 6
SLACK = 2.0
PRUNED = {"retention": 0.4, "memory": EveryOther()}
RUNS: tuple[dict[str, Any] | None, ...] = (None, PRUNED, {**PRUNED, "encode": "changed:threshold=0.7,limit=1"})


@dataclass(frozen=True)
class Row:
    """Largest difference of logits to float32 eager, as a share of their standard deviation."""

    family: str
    attention: str
    prompts: str
    dense: float
    pruned: float
    encoded: float | None = None
    """With only what changed encoded; None where the tower cannot."""

    @property
    def good(self) -> bool:
        return max(self.pruned, self.encoded or 0) <= SLACK * self.dense


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script.")] = "cuda",
    attention: Annotated[list[str] | None, typer.Option(help="Kernels; those that load, if not given.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Model types; all if not given.")] = None,
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = RESULTS,
) -> None:
    console = Console()
    if device == "cuda" and not torch.cuda.is_available():
        console.print("there is no CUDA device: --device cpu tries the script", style="red")
        raise typer.Exit(2)
    rows: list[Row] = []
    for name in family or tiny.FAMILIES:
        exact = tiny.make(name, "eager").to(device)
        for kernel in attention or kernels(device):
            fused = copy.deepcopy(exact).to(torch.bfloat16)
            fused.set_attn_implementation({"": kernel, "text_config": kernel, "vision_config": "sdpa"})
            for what, prompts in (("one", PROMPTS[:1]), ("padded batch", PROMPTS)):
                rows.append(compare(name, kernel, what, exact, fused, inputs_of(name, prompts, device)))
                console.print(f"{rows[-1]} {'ok' if rows[-1].good else 'OFF'}", highlight=False)
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    what = f"{where}, torch {torch.__version__}, transformers {transformers.__version__}"
    publish(out, "gpu_check", report(rows, what), {"where": where, "rows": [asdict(row) for row in rows]})
    raise typer.Exit(int(not all(row.good for row in rows)))


def kernels(device: str) -> list[str]:
    """The attention implementations that this machine can run."""
    from transformers.utils import is_flash_attn_2_available

    return ["sdpa", *(["flash_attention_2"] if device == "cuda" and is_flash_attn_2_available() else [])]


def inputs_of(family: str, prompts: list[list[tiny.Part]], device: str) -> dict[str, Any]:
    """Pixels are rounded to bfloat16, so that both models see the same ones and encode the same patches."""
    inputs = dict(tiny.FAMILIES[family].inputs(prompts))
    for name in inputs:
        if name.startswith("pixel_values"):
            inputs[name] = inputs[name].bfloat16().float()
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def compare(
    family: str, attention: str, prompts: str, exact: PreTrainedModel, fused: PreTrainedModel, inputs: dict[str, Any]
) -> Row:
    """One row; both models drop the same tokens and forget in the same layers."""
    errors = []
    for options in RUNS if find_family(exact).tower is not None else RUNS[:2]:
        logits, tokens = run(exact, inputs, options)
        got, _ = run(fused, inputs, options, tokens)
        errors.append(float((got - logits).abs().max() / logits.std()))
    return Row(family, attention, prompts, *errors)


def run(
    model: PreTrainedModel, inputs: dict[str, Any], pruned: dict[str, Any] | None, tokens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (B, NEW, V) in float32 and the tokens, greedy or forced."""
    given = {k: v.to(model.dtype) if k.startswith("pixel_values") else v for k, v in inputs.items()}
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    if tokens is not None:
        options["logits_processor"] = [Forced(tokens)]
    handle = sharpv.apply(model, "uniform", **pruned) if pruned else None
    try:
        out = model.generate(**(given if pruned else stock(given)), return_dict_in_generate=True, **options)
    finally:
        if handle is not None:
            handle.remove()
    return torch.stack(out.logits, dim=1).float(), out.sequences[:, -NEW:]


class Forced:
    """A logits processor that says what was said before; the logits that are compared come before it."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens, self.step = tokens, 0

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        self.step += 1
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter(1, self.tokens[:, self.step - 1, None], 0.0)


def report(rows: list[Row], where: str) -> list[str]:
    lines = [
        "# Fused attention and bfloat16",
        "",
        f"{where}. Largest difference of logits to the float32 run with eager attention, as a share of their standard "
        "deviation, teacher forced over a prefill and five decoding steps: of the unpruned model, which is the "
        "kernel's own error, and of the pruned one (kept 40 %, every other layer forgets), with every patch and with "
        "only those that changed encoded. Tiny models with random weights. Written by `python tests/gpu_check.py`.",
        "",
        "| family | attention | prompts | unpruned | pruned | and what changed encoded | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        verdict, encoded = "" if row.good else "off", "-" if row.encoded is None else f"{row.encoded:.3f}"
        figures = f"{row.dense:.3f} | {row.pruned:.3f} | {encoded}"
        lines.append(f"| {row.family} | {row.attention} | {row.prompts} | {figures} | {verdict} |")
    return lines


if __name__ == "__main__":
    typer.run(main)
