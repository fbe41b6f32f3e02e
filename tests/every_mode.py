"""Ways of running a model, what each must give on a pruned one, and which are refused: docs/reference/modes.md.

``python tests/every_mode.py`` writes the table from what stands here; ``test_modes.py`` checks every cell of it, and
that the file is this table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import (
    AutoProcessor,
    DynamicCache,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    pipeline,
)

import checkpoints
import sharpv
import tiny
from reference import on, reference_logits
from sharpv.models import FAMILIES, find_family
from sharpv.models.layout import FRAMES
from tiny import Clip

DOCUMENT = Path(__file__).parents[1] / "docs" / "reference" / "modes.md"
PROMPTS: list[list[tiny.Part]] = [[10, 11, Clip(1), 12, 13, 14, 12, 13], [10, Clip(2), 15]]
NEW = 4
GREEDY = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}


@dataclass
class Case:
    """One cell: a family, with the second stage or without, and a place for files."""

    family: str
    memory: float | None
    folder: Path

    @cached_property
    def model(self) -> PreTrainedModel:
        return tiny.make(self.family)

    def pruned(self, model: Any = None, **options: Any) -> sharpv.Pruning:
        return sharpv.apply(model or self.model, **{"memory": self.memory, **options})

    def inputs(self, prompts: list[list[tiny.Part]] = PROMPTS) -> dict[str, Any]:
        return tiny.FAMILIES[self.family].inputs(prompts)

    def greedy(self, model: Any = None, prompts: list[list[tiny.Part]] = PROMPTS, **options: Any) -> Tensor:
        """Logits of a pruned greedy run, (B, NEW, V)."""
        with self.pruned(model) as handle:
            out = (model or self.model).generate(**self.inputs(prompts), **GREEDY, max_new_tokens=NEW, **options)
        assert handle.report is not None and handle.report.kept < handle.report.total
        return torch.stack(out.logits, dim=1)

    def expect(self, got: Tensor, prompts: list[list[tiny.Part]] = PROMPTS, tolerance: float = 1e-5) -> None:
        torch.testing.assert_close(got.float(), self.greedy(prompts=prompts), atol=tolerance, rtol=0)


def greedy(case: Case) -> None:
    """Equals the unpruned model with the dropped tokens, and what layers forgot, hidden."""
    inputs, cache = case.inputs(), DynamicCache(config=case.model.config)
    with case.pruned() as handle:
        out = case.model.generate(**inputs, **GREEDY, max_new_tokens=NEW, **on(cache))
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    reference = reference_logits(case.model, inputs, cache._sharpv_request.prompt.keep, new, handle.report.forgotten)
    torch.testing.assert_close(torch.stack(out.logits, dim=1), reference, atol=1e-5, rtol=0)


def sampling(case: Case) -> None:
    inputs = case.inputs()
    with case.pruned():
        runs = []
        for _ in range(2):
            torch.manual_seed(3)
            runs.append(case.model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=NEW))
    assert torch.equal(*runs) and torch.equal(runs[0][:, :-NEW], inputs["input_ids"])


def beams(case: Case) -> None:
    _rows_alone(case, num_beams=3)


def several_sequences(case: Case) -> None:
    _rows_alone(case, num_beams=3, num_return_sequences=3)


def _rows_alone(case: Case, **options: Any) -> None:
    """A ragged batch gives each row what it gives alone, logits included."""
    options = {**GREEDY, "output_scores": True, "max_new_tokens": NEW, **options}
    with case.pruned():
        together = case.model.generate(**case.inputs(), **options)
        size, beams = options.get("num_return_sequences", 1), options["num_beams"]
        for row, prompt in enumerate(PROMPTS):
            alone = case.model.generate(**case.inputs([prompt]), **options)
            rows = slice(size * row, size * row + size)
            torch.testing.assert_close(together.sequences_scores[rows], alone.sequences_scores, atol=1e-5, rtol=0)
            assert torch.equal(together.sequences[rows, -NEW:], alone.sequences[:, -NEW:])
            first = together.logits[0][beams * row : beams * row + beams]
            torch.testing.assert_close(first, alone.logits[0], atol=1e-5, rtol=0)


def streaming(case: Case) -> None:
    class Recorder:
        pieces: list[int] = []

        def put(self, value: Tensor) -> None:
            self.pieces = [*self.pieces, *value.flatten().tolist()]

        def end(self) -> None:
            self.pieces.append(-1)

    with case.pruned():
        out = case.model.generate(**case.inputs(PROMPTS[:1]), max_new_tokens=NEW, streamer=(recorder := Recorder()))
    assert recorder.pieces == [*out[0].tolist(), -1]


def chunked_prefill(case: Case) -> None:
    case.expect(case.greedy(prefill_chunk_size=7))


def static_cache(case: Case) -> None:
    case.expect(case.greedy(cache_implementation="static", disable_compile=True))


def no_cache(case: Case) -> None:
    with case.pruned():
        case.model.generate(**case.inputs(), max_new_tokens=NEW, use_cache=False)


def prompt_lookup(case: Case) -> None:
    _tokens(case, prompt_lookup_num_tokens=2)


def assisted(case: Case) -> None:
    torch.manual_seed(1)
    draft = Qwen2ForCausalLM(Qwen2Config(**tiny.TEXT)).eval()
    draft.generation_config.update(pad_token_id=tiny.PAD, eos_token_id=None)
    _tokens(case, assistant_model=draft)


def _tokens(case: Case, **options: Any) -> None:
    inputs = case.inputs(PROMPTS[:1])
    with case.pruned():
        expected = case.model.generate(**inputs, do_sample=False, max_new_tokens=8)
        assert torch.equal(expected, case.model.generate(**inputs, do_sample=False, max_new_tokens=8, **options))


def two_turns(case: Case) -> None:
    inputs = case.inputs()
    with case.pruned() as handle:
        cache = DynamicCache(config=case.model.config)
        first = case.model.generate(**inputs, **on(cache), max_new_tokens=NEW)
        ids = torch.cat([first, torch.full((2, 2), 16)], dim=1)
        after = inputs["attention_mask"].new_ones(2, NEW + 2)
        mask = torch.cat([inputs["attention_mask"], after], dim=1)
        turn = {"input_ids": ids, "attention_mask": mask, **on(cache)}
        second = case.model.generate(**turn, **GREEDY, max_new_tokens=NEW)
    new = second.sequences[:, inputs["input_ids"].shape[1] :]
    reference = reference_logits(case.model, inputs, cache._sharpv_request.prompt.keep, new, handle.report.forgotten)
    torch.testing.assert_close(torch.stack(second.logits, dim=1), reference[:, NEW + 2 :], atol=1e-5, rtol=0)


def forward_with_labels(case: Case) -> None:
    inputs = case.inputs()
    labels = torch.where(inputs["input_ids"] < 10, -100, inputs["input_ids"])
    with case.pruned():
        out = case.model(**inputs, labels=labels)
    assert out.logits.shape[1] < labels.shape[1] and torch.isfinite(out.loss)
    out.loss.backward()
    case.model.zero_grad()


def a_pipeline(case: Case) -> None:
    folder = checkpoints.write(case.folder, case.family)
    model, processor = type(case.model).from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (1, 48, 48, 3)), 4, axis=0).astype(np.uint8)
    frames[:, 10:20, 10:20] = rng.integers(0, 255, (4, 10, 10, 3))
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "What is it?"}]
    options: dict[str, Any] = {"max_new_tokens": NEW}
    if find_family(model).modality == "image":
        options[FRAMES] = [4]
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    with case.pruned(model) as handle:
        (answer,) = ask(
            text=[{"role": "user", "content": content}],
            return_full_text=False,
            processor_kwargs={"do_sample_frames": False},
            generate_kwargs=options,
        )
    assert handle.report.kept < handle.report.total and isinstance(answer["generated_text"], str)


def compiled(case: Case) -> None:
    """Two layers and two tokens: compiling takes seconds."""
    logits = []
    for compile_it in (False, True):
        torch._dynamo.reset()
        model = tiny.make(case.family)
        decoder = model.get_decoder()
        del decoder.layers[2:]
        decoder.config.num_hidden_layers = 2
        if compile_it:
            decoder.compile(backend="eager")
        with case.pruned(model):
            out = model.generate(**case.inputs(), **GREEDY, max_new_tokens=2)
        logits.append(torch.stack(out.logits))
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


def bfloat16(case: Case) -> None:
    with case.pruned(model := tiny.make(case.family).bfloat16()) as handle:
        pixels = {name: v.bfloat16() if name.startswith("pixel_values") else v for name, v in case.inputs().items()}
        out = model.generate(**pixels, max_new_tokens=NEW)
    assert out.shape[1] == case.inputs()["input_ids"].shape[1] + NEW and handle.report.kept < handle.report.total


def offload(case: Case) -> None:
    from accelerate import cpu_offload

    model = tiny.make(case.family)
    cpu_offload(model, execution_device=torch.device("cpu"))
    case.expect(case.greedy(model))


def peft(case: Case) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.make(case.family), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    case.expect(case.greedy(model))  # LoRA starts as nothing
    assert sharpv.Pruning.of(model) is None


def deepcopied(case: Case) -> None:
    handle = case.pruned()
    copied = copy.deepcopy(case.model)
    handle.remove()
    theirs = sharpv.Pruning.of(copied)
    out = copied.generate(**case.inputs(), **GREEDY, max_new_tokens=NEW)
    case.expect(torch.stack(out.logits, dim=1))
    theirs.remove()


def saved(case: Case) -> None:
    with case.pruned():
        case.model.save_pretrained(case.folder)
    loaded = type(case.model).from_pretrained(case.folder).eval()
    loaded.generation_config = case.model.generation_config
    assert sharpv.Pruning.of(loaded) is None
    case.expect(case.greedy(loaded))


MODES: dict[str, Callable[[Case], None]] = {
    "greedy": greedy,
    "sampling": sampling,
    "beams, ragged batch": beams,
    "`num_return_sequences`": several_sequences,
    "streaming": streaming,
    "two turns": two_turns,
    "`forward` with labels": forward_with_labels,
    "chunked prefill": chunked_prefill,
    "static cache": static_cache,
    "`use_cache=False`, original positions": no_cache,
    "prompt lookup": prompt_lookup,
    "assisted, text draft": assisted,
    '`pipeline("image-text-to-text")`': a_pipeline,
    "`torch.compile` of the text model": compiled,
    "bfloat16": bfloat16,
    "weights offloaded to the CPU": offload,
    "PEFT (LoRA)": peft,
    "`deepcopy`": deepcopied,
    "`save_pretrained`": saved,
}
STAGES: dict[str, float | None] = {"1": None, "1 and 2": tiny.HIGH_M}
ONE_D = tuple(t for family in FAMILIES if family.positions == "1d" for t in family.model_types)
MROPE = tuple(t for family in FAMILIES if family.positions == "mrope" for t in family.model_types)


@dataclass(frozen=True)
class Refusal:
    """A mode that is refused: the sentence that the user reads, for some families, or with the second stage only."""

    mode: Callable[[Case], None]
    sentence: str
    families: tuple[str, ...] | None = None
    stages: tuple[str, ...] = ("1", "1 and 2")
    by: str = "sharpv"
    below: str | None = None
    """Only with versions of transformers below this one."""


REFUSALS = (
    Refusal(chunked_prefill, "prefill_chunk_size reads videos wrongly in transformers", stages=("1",), below="5.23"),
    Refusal(chunked_prefill, "memory needs the prefill in one piece: apply with memory=None", stages=("1 and 2",)),
    Refusal(static_cache, "memory needs the dynamic cache, got cache_implementation='static'", stages=("1 and 2",)),
    Refusal(no_cache, "use_cache=False has transformers read gaps between original positions as new sequences", ONE_D),
    Refusal(prompt_lookup, "assisted generation is not supported with stateful models", ("qwen3_5",), ("1",),
            by="transformers"),
    Refusal(prompt_lookup, "assisted decoding judges its first candidates in the same pass", stages=("1 and 2",)),
    Refusal(assisted, "assisted decoding judges its first candidates in the same pass", stages=("1 and 2",)),
    Refusal(assisted, "on this model assisted decoding needs a draft of the same kind", MROPE, ("1",)),
    Refusal(offload, "transformers cannot run GLM-4.1V to 4.6V with offloaded weights", ("glm4v",)),
    Refusal(offload, "transformers cannot run PerceptionLM with offloaded weights", ("perception_lm",)),
)  # fmt: skip


def refusals() -> list[Refusal]:
    """Those of the installed transformers."""
    return [e for e in REFUSALS if e.below is None or Version(transformers.__version__) < Version(e.below)]


def refusal(mode: str, family: str, stage: str) -> Refusal | None:
    """Why a cell is refused, or None."""
    for entry in refusals():
        known = entry.families is None or family in entry.families
        if entry.mode is MODES[mode] and known and stage in entry.stages:
            return entry
    return None


def table() -> str:
    """The page."""
    notes = list(dict.fromkeys((entry.by, entry.sentence) for entry in refusals()))
    names = {
        model_type: family.name if index == 0 else f"{family.name} (`{model_type}`)"
        for family in FAMILIES
        for index, model_type in enumerate(family.model_types)
        if model_type in tiny.FAMILIES
    }
    lines = [
        "# Modes",
        "",
        "Every cell is a test on a tiny model with random weights, on a CPU (`tests/test_modes.py`), which compares "
        "logits with those of the plain greedy run of the pruned model, and that one with the unpruned model whose "
        "dropped tokens are masked. *both*: with the first stage alone and with both. *1*: the first stage alone, "
        "the second is refused. Numbers name the sentence with which a mode is refused. Written by "
        "`python tests/every_mode.py`.",
        "",
        "| mode | " + " | ".join(names.values()) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for mode in MODES:
        cells = []
        for family in names:
            first, second = (refusal(mode, family, stage) for stage in STAGES)
            found = [entry for entry in (first, second) if entry is not None]
            marks = sorted({notes.index((entry.by, entry.sentence)) + 1 for entry in found})
            word = "both" if not found else "1" if first is None else "no"
            cells.append(word + (f" ({', '.join(map(str, marks))})" if marks else ""))
        lines.append(f"| {mode} | " + " | ".join(cells) + " |")
    lines.append("")
    for number, (by, sentence) in enumerate(notes, 1):
        lines.append(f"{number}. {sentence} ...{'' if by == 'sharpv' else f' (says {by})'}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(table())
