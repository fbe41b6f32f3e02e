"""What may a layer forget? Criteria for the second stage side by side, at the same share of visual KV entries.

    python benchmarks/second_stage.py rules [--model pocket|smol] [--videos 200] [--retention 0.25] [--smoke --out DIR]

Answers of several tokens only (the first token is read at prefill and cannot change). Each question is scored with its
true answer fed back, packed behind the video; its tokens after the first do not see what its layers, heads or entries
have forgotten, which is what decoding from a smaller cache computes (tests/kvcache/test_memory.py). Contributions are
computed here from attention weights, independently of sharpv.Contribution, which never sees any. sharpv.calibrate gets
videos of its own, and no true answers. Pages go to docs/results; rerun to resume.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from common import Asked, Run, Study, asked, script
from torch import Tensor, nn
from transformers import DynamicCache

from sharpv import Contribution, CosineThreshold, SharpV, calibrate
from sharpv.calibration import Calibration
from sharpv.evaluation.packing import IGNORE, Phrasing, attention_mask, forward, pack, prefix_of, tokenise
from sharpv.evaluation.scoring import EvaluationSet, evaluation_set, prompt_inputs
from sharpv.evaluation.statistics import interval, resamples
from sharpv.kvcache.cache import CACHE
from sharpv.methods.budget import Budget, rank
from sharpv.pocket.questions import Question
from training.pocket.running import MONITOR_SEED, MONITOR_TEXTURES

SHORT, LONG = "2 to 9 tokens", "10 tokens and more"
ENOUGH = 20
"""Right answers below which a plot would show chance."""
ROWS, BLOCKS = 4, 6
SHARES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
CALIBRATION_VIDEOS = 4
CALIBRATION_QUESTIONS = 3
"""Of each of these videos: its caption and the first questions with answers of several tokens."""


@dataclass
class Signals:
    """What can be known at prefill, and one thing that cannot; L layers, Q questions, V visual tokens, K KV heads."""

    cosine: Tensor
    """(L, Q), the paper's."""
    text: Tensor
    """(L, Q) the same of the tokens behind the video."""
    layers: Tensor
    """(L, Q) contribution to the last prompt token."""
    several: Tensor
    """(L, Q) the same, mean over the last ROWS prompt tokens."""
    undivided: Tensor
    """(L, Q) as ``several``, of the last layer's residual stream: what a layer adds, not beside what it was given."""
    heads: Tensor
    """(L, K, Q) contribution of a KV head's visual entries alone."""
    entries: Tensor
    """(L, Q, V) || a_j W_o v_j || / || x ||: what one visual entry adds."""
    oracle: Tensor
    """(L, Q) mean KL divergence of the later tokens' distributions when this layer alone has forgotten."""
    blocks: Tensor
    """(blocks, Q) the same when so many layers in a row have."""


class Bench:
    """A model whose layers can be made to forget for decoding rows, and watched."""

    def __init__(self, model: Any, phrasing: Phrasing) -> None:
        self.model, self.phrasing = model, phrasing
        model.set_attn_implementation("eager")
        text = model.config.text_config
        self.heads, self.groups = text.num_attention_heads, text.num_key_value_heads
        self.layers = list(model.get_decoder().layers)
        self.hidden: list[Tensor | None] = [None] * len(self.layers)
        self.seen: list[dict[str, Tensor]] | None = None
        for index, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(lambda m, a, k, i=index: self._mask(i, a, k), with_kwargs=True)
            layer.self_attn.register_forward_hook(
                lambda m, a, k, o, i=index: self._watch(i, weights=o[1]), with_kwargs=True
            )
            layer.self_attn.v_proj.register_forward_hook(lambda m, a, o, i=index: self._watch(i, values=o))

    def _mask(self, index: int, args: Any, kwargs: dict) -> tuple[Any, dict]:
        allowed = kwargs["attention_mask"]
        if self.hidden[index] is not None:
            allowed = allowed & ~self.hidden[index]
        self._watch(index, hidden=args[0] if args else kwargs["hidden_states"])
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
        return args, {**kwargs, "attention_mask": mask}

    def _watch(self, index: int, **what: Tensor) -> None:
        if self.seen is not None:
            self.seen[index].update(what)

    def log_probs(self, hidden: Tensor) -> Tensor:
        """(tokens, D) -> (tokens, vocabulary), what generation never says left out."""
        logits = self.model.lm_head(hidden)
        logits[:, self.model.generation_config.suppress_tokens or []] = -torch.inf
        return logits.log_softmax(-1)

    @contextmanager
    def watching(self) -> Iterator[list[dict[str, Tensor]]]:
        self.seen = [{} for _ in self.layers]
        yield self.seen
        self.seen = None

    @contextmanager
    def forgetting(self, hidden: list[Tensor | None]) -> Iterator[None]:
        self.hidden = hidden
        yield
        self.hidden = [None] * len(self.layers)


@dataclass
class Video:
    """One video and its packed questions, read once; the answers' later tokens are decoded as often as wanted."""

    bench: Bench
    columns: Tensor
    """(V,) the visual tokens, in the sequence of n tokens."""
    last: Tensor
    """(Q,) the last prompt token of each question."""
    later: Tensor
    """(R,) the answers' tokens that decoding feeds back."""
    owner: Tensor
    """(R,) the question that each of them belongs to."""
    targets: Tensor
    """(R,) what should follow."""
    log_probs: Tensor
    """(R, vocabulary) what does follow while nothing is forgotten."""
    first: Tensor
    """(Q,) bool, the first token of each answer is right: it is read at prefill."""
    embeds: Tensor
    """(1, R, D) of the later tokens; their places are (1, R)."""
    places: Tensor
    past: list[tuple[Tensor, Tensor]]
    """Keys and values of everything before the later tokens, a layer each."""
    allowed: Tensor
    """(R, n) where the later tokens may look: at ``past``, then at each other."""
    seen: list[dict[str, Tensor]]
    """What was watched in each layer."""

    @classmethod
    def of(cls, bench: Bench, features: Tensor, keep: Tensor, questions: list[Question]) -> Video:
        packed = pack([tokenise(questions, bench.phrasing)])
        head = len(bench.phrasing.head)
        prefix = prefix_of(features.flatten(0, 1)[None], keep.flatten()[None], head=head)
        kept = prefix.valid.shape[1]
        start = head + kept + 1
        block, target = packed.block[0], packed.target[0]
        own = block == torch.arange(len(questions))[:, None]
        answers = own & (target != IGNORE)
        first = answers.int().argmax(dim=1)
        owner, asked = (answers & (torch.arange(len(block)) > first[:, None])).nonzero(as_tuple=True)
        cache = DynamicCache()
        with bench.watching() as seen:
            hidden, _ = forward(bench.model, prefix, packed, phrasing=bench.phrasing, cache=cache)
        later = asked + start
        before = torch.ones(start + len(block), dtype=torch.bool)
        before[later] = False
        order = torch.cat([before.nonzero()[:, 0], later])
        return cls(
            bench,
            columns=torch.arange(head, head + kept),
            last=first + start,
            later=later,
            owner=owner,
            targets=target[asked],
            log_probs=bench.log_probs(hidden[0, asked]),
            first=bench.log_probs(hidden[0, first]).argmax(-1) == target[first],
            embeds=bench.model.get_input_embeddings()(packed.ids[:, asked]),
            places=(prefix.end[:, None] + 1 + packed.offset)[:, asked],
            past=[(layer.keys[:, :, before], layer.values[:, :, before]) for layer in cache.layers],
            allowed=attention_mask(prefix, packed.block, head)[0, 0, later][:, order],
            seen=seen,
        )

    def decode(self, gone: Tensor) -> Tensor:
        """(L, K, Q, V) bool, what each question's later tokens do not see -> their log probabilities."""
        bench, hidden = self.bench, []
        for layer in gone:
            mask = torch.zeros(len(layer), *self.allowed.shape, dtype=torch.bool)
            mask[:, :, self.columns] = layer[:, self.owner]
            hidden.append(mask.repeat_interleave(bench.heads // len(layer), dim=0)[None] if layer.any() else None)
        with bench.forgetting(hidden):
            output = bench.model.get_decoder()(
                inputs_embeds=self.embeds,
                attention_mask=self.allowed[None, None],
                position_ids=self.places,
                **{CACHE: DynamicCache(self.past)},
            )
        return bench.log_probs(output.last_hidden_state[0])

    def score(self, gone: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """(right (Q,), loss of each answer's later tokens (Q,)) after forgetting ``gone``."""
        log_probs = self.log_probs if gone is None else self.decode(gone)
        wrong = self._per_question((log_probs.argmax(-1) != self.targets).float()) > 0
        loss = self._per_question(-log_probs.gather(1, self.targets[:, None])[:, 0])
        return (self.first & ~wrong).numpy(), loss.numpy()

    def _per_question(self, values: Tensor) -> Tensor:
        """(R,) -> (Q,) means."""
        total = torch.zeros(2, len(self.last)).index_add(1, self.owner, torch.stack([values, torch.ones_like(values)]))
        return total[0] / total[1]

    def signals(self) -> Signals:
        parts: dict[str, list[Tensor]] = defaultdict(list)
        for layer, facts in zip(self.bench.layers, self.seen, strict=True):
            hidden, reference = facts["hidden"][0], self.seen[0]["hidden"][0]
            cosine = torch.cosine_similarity(hidden, reference, dim=-1)
            parts["cosine"].append(cosine[self.columns].mean().expand(len(self.last)))
            parts["text"].append(cosine[self.columns[-1] + 1 :].mean().expand(len(self.last)))
            rows = torch.stack([self.last - back for back in range(ROWS)])
            added = torch.stack([self._contribution(layer, facts, row).norm(dim=-1) for row in rows])
            several = added / hidden[rows].norm(dim=-1)
            parts["layers"].append(several[0])
            parts["several"].append(several.mean(0))
            parts["undivided"].append((added / self.seen[-1]["hidden"][0][rows].norm(dim=-1)).mean(0))
            size = hidden[self.last].norm(dim=-1)
            by_head = self._contribution(layer, facts, self.last, whole=False)  # (Q, H, D)
            grouped = by_head.unflatten(1, (self.bench.groups, -1)).sum(2).norm(dim=-1)
            parts["heads"].append((grouped / size[:, None]).T)
            parts["entries"].append(self._entries(layer, facts) / size[:, None])
        every = torch.arange(len(self.bench.layers))
        oracle = torch.stack([self._harm(every == index) for index in every])
        blocks = torch.stack([self._harm(torch.isin(every, block)) for block in blocks_of(len(every))])
        return Signals(**{name: torch.stack(part) for name, part in parts.items()}, oracle=oracle, blocks=blocks)

    def _parts(self, layer: nn.Module, facts: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention weights (Q, H, n), values (H, n, hd), the output map as (H, hd, D)."""
        weights = facts["weights"][0][:, rows].transpose(0, 1)
        values = facts["values"][0].unflatten(-1, (self.bench.groups, -1)).transpose(0, 1)
        values = values.repeat_interleave(self.bench.heads // self.bench.groups, dim=0)
        out = layer.self_attn.o_proj.weight.T.unflatten(0, (self.bench.heads, -1))
        return weights, values, out

    def _contribution(self, layer: nn.Module, facts: dict, rows: Tensor, whole: bool = True) -> Tensor:
        """Attention output minus the same without the visual keys: (Q, D), or per head (Q, H, D)."""
        weights, values, out = self._parts(layer, facts, rows)
        text = weights.clone()
        text[..., self.columns] = 0
        text /= text.sum(-1, keepdim=True).clamp(min=1e-20)
        by_head = torch.einsum("qhn,hnd,hdo->qho", weights - text, values, out)
        return by_head.sum(1) if whole else by_head

    def _entries(self, layer: nn.Module, facts: dict) -> Tensor:
        weights, values, out = self._parts(layer, facts, self.last)
        moved = torch.einsum("hvd,hdo->vho", values[:, self.columns], out)  # (V, H, D)
        return torch.einsum("qhv,vho->qvo", weights[..., self.columns], moved).norm(dim=-1)

    def _harm(self, layers: Tensor) -> Tensor:
        gone = by_layer(layers[:, None]).expand(-1, -1, len(self.last), len(self.columns))
        before, after = self.log_probs.clamp(min=-1e4), self.decode(gone).clamp(min=-1e4)
        return self._per_question(torch.nn.functional.kl_div(after, before, reduction="none", log_target=True).sum(-1))


def blocks_of(layers: int) -> list[Tensor]:
    """At most BLOCKS runs of layers."""
    return list(torch.arange(layers).chunk(BLOCKS))


Rule = Callable[[Signals], Tensor]
"""From the signals to what is gone, (L, K or 1, Q, V or 1) bool."""


def lowest(values: Tensor, share: float) -> Tensor:
    """All but the largest ``share`` along the first dimension (at least one stays); ties to the lower index."""
    kept = max(round(share * len(values)), 1)
    return rank(values.movedim(0, -1)).movedim(-1, 0) >= kept


def by_layer(flags: Tensor) -> Tensor:
    return flags[:, None, :, None]


def rules(layers: int, calibrated: Calibration) -> dict[str, dict[str, Rule]]:
    """Curves: for each criterion, settings from mild to severe."""
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(layers, generator=generator)

    def ranked(of: Callable[[Signals], Tensor]) -> dict[str, Rule]:
        counts = sorted({max(round(share * layers), 1) for share in SHARES})
        return {
            f"{kept} of {layers} layers": lambda s, kept=kept: by_layer(lowest(of(s), kept / layers)) for kept in counts
        }

    def heads(share: float) -> Rule:
        return lambda s: lowest(s.heads.flatten(0, 1), share).unflatten(0, s.heads.shape[:2])[..., None]

    def entries(share: float) -> Rule:
        def rule(s: Signals) -> Tensor:
            flat = s.entries.transpose(1, 2).flatten(0, 1)  # (L * V, Q)
            return lowest(flat, share).unflatten(0, (layers, -1)).transpose(1, 2)[:, None]

        return rule

    def within(share: float) -> Rule:
        return lambda s: lowest(s.entries.permute(2, 0, 1), share).permute(1, 2, 0)[:, None]

    forgetting = torch.ones(layers, dtype=torch.bool)
    forgetting[list(calibrated.keep)] = False
    harm = torch.tensor(calibrated.harm)
    return {
        "calibrated layers": {"as calibrate says": lambda s: by_layer(forgetting[:, None].expand_as(s.layers))},
        "calibrated layers, by number": ranked(lambda s: harm[:, None].expand_as(s.layers)),
        "paper: mean cosine below M": {
            f"M = {m}": lambda s, m=m: by_layer(CosineThreshold(m).forget(s.cosine))
            for m in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.5, 0.7, 0.9)
        },
        "lowest cosine": ranked(lambda s: s.cosine),
        "contribution": ranked(lambda s: s.layers),
        f"contribution to {ROWS} rows": ranked(lambda s: s.several),
        f"contribution to {ROWS} rows, of the last stream": ranked(lambda s: s.undivided),
        "contribution, absolute": {
            f"below {t}": lambda s, t=t: by_layer(Contribution(threshold=t).forget(s.layers))
            for t in (0.01, 0.02, 0.05, 0.1, 0.2)
        },
        "contribution, relative": {
            f"below {t} of the largest": lambda s, t=t: by_layer(Contribution(relative=t).forget(s.layers))
            for t in (0.02, 0.05, 0.1, 0.2, 0.5)
        },
        "contribution, of the last stream, relative": {
            f"below {t} of the largest": lambda s, t=t: by_layer(s.undivided < t * s.undivided.amax(dim=0))
            for t in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
        },
        "contribution of KV heads": {f"{share:.0%} of the heads": heads(share) for share in SHARES},
        "contribution of entries": {f"{share:.0%} of the entries": entries(share) for share in (0.05, *SHARES)},
        "contribution of entries, alike in each layer": {
            f"{share:.0%} of the entries": within(share) for share in (0.05, *SHARES)
        },
        "control: deepest layers first": ranked(lambda s: -torch.arange(layers)[:, None].expand_as(s.layers).float()),
        "control: random layers": ranked(lambda s: chance[:, None].expand_as(s.layers)),
        "oracle: harm to the answer": ranked(lambda s: s.oracle),
    }


def calibrated_on_others(network: Asked, retention: float, videos: int, **options: float) -> Calibration:
    """What sharpv.calibrate says, from videos that are not evaluated."""
    others = evaluation_set(videos, seed=MONITOR_SEED, texture_seed=MONITOR_TEXTURES)
    prompts = [
        prompt_inputs(network.processor, others.video(index), question.prompt)
        for index in range(len(others))
        for question in sorted(network.several(others, index), key=lambda q: q.form != "caption")[
            :CALIBRATION_QUESTIONS
        ]
    ]
    return calibrate(network.model, prompts, retention=retention, max_new_tokens=96, **options)


@torch.no_grad()
def study(run: Run, retention: float) -> dict[str, Any]:
    """Run every rule on every video; what was found per video is kept in the run's folder."""
    network = asked(run.model)
    calibrated = calibrated_on_others(network, retention, 1 if run.smoke else CALIBRATION_VIDEOS)
    bench = Bench(network.model, network.phrasing)
    evaluation = evaluation_set(run.videos)
    curves = rules(len(bench.layers), calibrated)
    folder = (run.out if run.smoke else run.folder) / "second_stage" / f"{Path(run.model).name}_{retention}"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for index in run.track(range(run.videos), "forgetting"):
        kept_file = folder / f"{index}.json"
        if not kept_file.exists():
            questions = network.several(evaluation, index)
            facts: dict[str, Any] = {"groups": [], "rules": {}, "signals": {}}
            if questions:
                facts = _one(bench, evaluation, index, questions, retention, curves)
            kept_file.write_text(json.dumps(facts))
        found.append(json.loads(kept_file.read_text()))
    found = [facts for facts in found if facts["groups"]]
    return {"layers": len(bench.layers), "found": found, "calibrated": calibrated}


def _one(bench: Bench, evaluation: EvaluationSet, index: int, questions: list, retention: float, curves: dict) -> dict:
    from sharpv.pocket.model import frame_features, pixel_values

    features = frame_features(bench.model, pixel_values(evaluation.video(index)))
    keep = SharpV().select(features, Budget(retention)).keep
    video = Video.of(bench, features, keep, questions)
    signals = video.signals()
    lengths = [len(tokens.answer) - 1 for tokens in tokenise(questions, bench.phrasing)]
    right, loss = video.score(None)
    made = {"nothing": (1.0, right, loss)}
    known: dict[bytes, tuple] = {}  # many rules agree
    for curve, settings in curves.items():
        for setting, rule in settings.items():
            gone = rule(signals).expand(-1, bench.groups, -1, len(video.columns))
            key = np.packbits(gone.numpy()).tobytes()
            if key not in known:
                known[key] = video.score(gone)
            made[f"{curve}; {setting}"] = (1 - gone.float().mean().item(), *known[key])
    return {
        "groups": [LONG if length >= 10 else SHORT for length in lengths],
        "signals": {
            "cosine": signals.cosine[:, 0].tolist(),
            "text": signals.text[:, 0].tolist(),
            "layers": signals.layers.mean(1).tolist(),
            "oracle": signals.oracle.mean(1).tolist(),
            "blocks": signals.blocks.mean(1).tolist(),
        },
        "rules": {key: [share, r.astype(int).tolist(), np.round(x, 4).tolist()] for key, (share, r, x) in made.items()},
    }


def summarise(found: list[dict]) -> list[dict[str, Any]]:
    """One row per rule: kept share, accuracy and loss by group, differences to nothing with 95 % intervals."""
    draws = resamples(len(found))
    groups = {SHORT, LONG} & {group for facts in found for group in facts["groups"]}
    counts = {group: draws @ np.array([facts["groups"].count(group) for facts in found]) for group in groups}
    rows, base = [], {}
    for key in found[0]["rules"]:
        row: dict[str, Any] = {"rule": key, "kept": float(np.mean([facts["rules"][key][0] for facts in found]))}
        for group in sorted(groups):
            right, loss = (
                draws
                @ np.array([np.array(one["rules"][key][i])[np.array(one["groups"]) == group].sum() for one in found])
                for i in (1, 2)
            )
            accuracy = right / counts[group]
            base.setdefault(group, accuracy)
            row[group] = {
                "accuracy": float(accuracy[0]),
                "loss": float((loss / counts[group])[0]),
                "points": interval(100 * (accuracy - base[group])),
            }
        rows.append(row)
    return rows


def page(run: Run, retention: float, facts: dict[str, Any], rows: list[dict]) -> list[str]:
    """The Markdown page, line by line."""
    found, layers = facts["found"], facts["layers"]
    groups = [group for group in (SHORT, LONG) if group in rows[0]]
    asked = {group: sum(one["groups"].count(group) for one in found) for group in groups}
    counts = ", ".join(f"{count} answers of {group}" for group, count in asked.items())
    lines = [
        f"# The second stage on {Path(run.model).name}: which layers may forget",
        "",
        f"{run.videos} videos of 8 frames, SharpV keeps {100 * retention:.0f} % of the visual tokens before the LLM; "
        f"{counts}. Exact match with the true answer fed back, in brackets the difference to forgetting nothing in "
        "points with its paired 95 % interval, then the loss of the tokens after the first. Written by "
        f"{run.command}.",
        "",
        "| layer | " + " | ".join(map(str, range(layers))) + " |",
        "| --- |" + " --- |" * layers,
    ]
    titles = {
        "cosine": "mean cosine to layer 0, visual tokens",
        "text": "the same, text",
        "layers": "contribution",
        "oracle": "harm (KL) when it alone forgets",
    }
    for signal, title in titles.items():
        mean = np.mean([one["signals"][signal] for one in found], axis=0)
        lines.append(f"| {title} | " + " | ".join(f"{value:.2g}" for value in mean) + " |")
    runs = [f"{block[0]} to {block[-1]}" for block in blocks_of(layers)]
    harm = np.mean([one["signals"]["blocks"] for one in found], axis=0)
    if len(runs) < layers:
        lines += ["", f"| layers that forget together | {' | '.join(runs)} |", "| --- |" + " --- |" * len(runs)]
        lines.append("| harm (KL) | " + " | ".join(f"{value:.2g}" for value in harm) + " |")
    keep = ", ".join(map(str, facts["calibrated"].keep))
    lines += [
        "",
        f"Layers that `sharpv.calibrate` keeps, from {facts['calibrated'].answers} answers of the model about other "
        f"videos: {keep}.",
        "",
        "| criterion | setting | visual KV kept | " + " | ".join(groups) + " |",
        "| --- |" + " --- |" * (2 + len(groups)),
    ]
    for row in rows:
        criterion, _, setting = row["rule"].partition("; ")
        cells = []
        for group in groups:
            difference = "" if row is rows[0] else f" ({row[group]['points']})"
            cells.append(f"{row[group]['accuracy']:.3f}{difference}, {row[group]['loss']:.3f}")
        lines.append(f"| {criterion} | {setting} | {100 * row['kept']:.1f} % | " + " | ".join(cells) + " |")
    return lines


def compare(run: Run) -> None:
    """Every rule on every video."""
    name, retention = Path(run.model).name, run.retention or 1.0
    facts = study(run, retention)
    rows = summarise(facts["found"])
    stem = f"second_stage_{name}" + ("" if retention == 1 else f"_{100 * retention:.0f}")
    run.publish(stem, page(run, retention, facts, rows), {"layers": facts["layers"], "rows": rows})
    longest = LONG if LONG in rows[0] else SHORT
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows[1:]:
        curves.setdefault(row["rule"].partition("; ")[0], []).append((row["kept"], row[longest]["accuracy"]))
    top = rows[0][longest]["accuracy"]
    if facts["found"] and round(top * sum(one["groups"].count(longest) for one in facts["found"])) >= ENOUGH:
        heading = f"{name}: answers of {longest} against kept visual KV entries"
        level = ("nothing forgotten", top)
        run.draw(stem, curves, "visual KV entries", f"exact match, answers of {longest}", level, title=heading)


STUDIES = {"rules": Study(compare, 200, smoke=1, plots=True)}

if __name__ == "__main__":
    typer.run(script("second_stage.py", STUDIES))
