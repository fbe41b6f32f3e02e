"""The model that lmms-eval talks to: any family, any method, one request at a time."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.protocol import ChatMessages
from tqdm import tqdm

from ... import asking
from ...config import Config
from ...door import apply
from ...pruning import Pruning
from ...report import Report
from ...video import read_video

GENERATION = ("do_sample", "temperature", "top_p", "num_beams")
"""What a task may ask of ``generate`` besides the length and where to stop."""


@contextmanager
def _fatal() -> Iterator[None]:
    """lmms-eval prints the traceback of an exception and exits with 0: end the process instead."""
    try:
        yield
    except Exception as error:  # whatever it is, no results follow
        traceback.print_exc()
        raise SystemExit(1) from error


class SharpVModel(lmms):
    """A Hugging Face VideoLLM with or without pruning, for chat tasks.

    Args:
        pretrained: "pocket", "smol", a local directory or a hub id.
        method: a method as in :class:`sharpv.Config`, or "dense" for the untouched model, which is the baseline to
            compare with: other ids of lmms-eval have prompts of their own.
        config: a file that :meth:`sharpv.Config.save` wrote.
        options: fields of :class:`sharpv.Config`, spelled as on the command line ("layers:0+23+24"). lmms-eval divides
            its model_args at commas: what has several parameters goes into a config file.
        num_frames: frames sampled from a video, evenly; ``fps`` instead samples by time.
        max_new_tokens: where a task says nothing.
        device, dtype: as in ``sharpv ask``.
        batch_size: 1.

    A wrong argument, and any failure while answering, ends the process with exit code 1.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        method: str | None = None,
        config: str | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        max_new_tokens: int = 128,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        with _fatal():
            if int(batch_size) != 1:
                raise ValueError(f"batch_size must be 1, got {batch_size}")
            self.frames = 32 if num_frames is None and fps is None else num_frames
            self.fps, self.max_new_tokens = fps, max_new_tokens
            self.model, self.processor = asking.load(pretrained, device, dtype)
            self.pruning: Pruning | None = None
            if method != "dense":
                asked = Config() if config is None else Config.load(config)
                changes = options if method is None else {"method": method, **options}
                self.pruning = apply(self.model, Config.of(asked, **changes))
            elif options or config:
                raise ValueError(f"method=dense prunes nothing, but was given {', '.join(options) or 'config'}")

    def generate_until(self, requests: list[Any]) -> list[GenerationResult]:
        """Answer every request; retentions and TTFT go into lmms-eval's throughput table."""
        answers: list[asking.Answer] = []
        reports: list[Report] = []
        results = []
        with _fatal():
            for request in tqdm(requests, desc="sharpv"):
                _, doc_to_messages, options, doc_id, task, split = request.args
                before = self._report()
                answer = self._answer(doc_to_messages(self.task_dict[task][split][doc_id]), dict(options))
                answers.append(answer)
                report = self._report()
                if report is not None and report is not before:  # a prompt without a video has none
                    reports.append(report)
                counts = TokenCounts(output_tokens=answer.tokens)
                results.append(GenerationResult(_until(answer.text, options.get("until")), counts))
            self._log(answers, reports)
        return results

    def _report(self) -> Report | None:
        return None if self.pruning is None else self.pruning.report

    def _answer(self, said: list[dict[str, Any]], options: dict[str, Any]) -> asking.Answer:
        messages = ChatMessages(messages=said)
        images, videos, sounds = messages.extract_media()
        if sounds:
            raise ValueError("sharpv answers about videos and images, this task brings audio")
        clips = [read_video(video, frames=self.frames, fps=self.fps) for video in videos]
        turns = [
            {"role": turn.role, "content": [_part(content) for content in turn.content]} for turn in messages.messages
        ]
        inputs = asking.encode_turns(self.model, self.processor, turns, clips, images)
        generation = {name: options[name] for name in GENERATION if name in options}
        if not generation.get("do_sample"):
            generation.pop("temperature", None), generation.pop("top_p", None)
        longest = options.get("max_new_tokens", self.max_new_tokens)
        return asking.answer(self.model, self.processor, inputs, longest, **generation)

    def _log(self, answers: list[asking.Answer], reports: list[Report]) -> None:
        seconds, tokens = sum(answer.seconds for answer in answers), sum(answer.tokens for answer in answers)
        facts = {"ttft_ms": 1000 * float(np.mean([answer.first_token for answer in answers]))} if answers else {}
        if reports:
            facts["retention_before_llm"] = float(np.mean([report.retention for report in reports]))
            facts["retention_over_layers"] = float(np.mean([report.layer_retention for report in reports]))
            stored = [report.kv_retention for report in reports if report.kv_retention is not None]
            facts["retention_kv_bytes"] = float(np.mean(stored)) if stored else float("nan")
            facts["visual_tokens_kept"] = float(np.mean([report.kept for report in reports]))
        log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, additional_metrics=facts)

    def loglikelihood(self, requests: list[Any]) -> NoReturn:
        """Not available: the tasks of interest generate."""
        raise NotImplementedError("sharpv answers tasks that generate, not loglikelihood")

    def generate_until_multi_round(self, requests: list[Any]) -> NoReturn:
        """Not available."""
        raise NotImplementedError("sharpv answers tasks of one round")


def _part(content: Any) -> dict[str, str]:
    return {"type": "text", "text": content.text} if content.type == "text" else {"type": content.type}


def _until(text: str, ends: str | list[str] | None) -> str:
    for end in [ends] if isinstance(ends, str) else ends or []:
        if end:
            text = text.split(end)[0]
    return text
