"""lmms-eval end to end, offline, in the formats of its four video tasks: ``make test-lmms-eval``.

The data set is made from pocket's world; prompts, parsing and scoring are lmms-eval's own, except that an exact match
stands in for ActivityNet-QA's judge.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharpv.evaluation.scoring import evaluation_set
from sharpv.pocket.questions import LETTERS
from sharpv.pocket.world import write_clip

VIDEOS = 2
FOLDERS = {
    "mvbench": "mvbench_video/ssv2_video_mp4/{}.mp4",
    "videomme": "videomme/data/{}.mp4",
    "nextqa": "nextqa/NExTVideo/{}.mp4",
    "activitynetqa": "activitynetqa/all_test/v_{}.mp4",
}
COMMON = """
task: small_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
generation_kwargs: {{max_new_tokens: 16, do_sample: false, until: ["ASSISTANT:"]}}
doc_to_visual: !function {name}.{prefix}_doc_to_visual
doc_to_text: !function {name}.{text}
doc_to_target: "answer"
process_results: !function {name}.{results}
metric_list:
  - {{metric: {metric}, aggregation: {aggregation}, higher_is_better: true}}
lmms_eval_specific_kwargs:
  default: {{sub_task: action_antonym, pre_prompt: "", post_prompt: "{post}"}}
"""
TASKS: dict[str, dict[str, str]] = {
    "mvbench": dict(
        prefix="mvbench", text="mvbench_doc_to_text", results="mvbench_process_results", metric="mvbench_accuracy",
        aggregation="!function mvbench.mvbench_aggregate_results", post="Only give the best option.\\n",
    ),
    "videomme": dict(
        prefix="videomme", text="videomme_doc_to_text", results="videomme_process_results",
        metric="videomme_perception_score", aggregation="!function videomme.videomme_aggregate_results",
        post="\\nAnswer with the option's letter from the given choices directly.",
    ),
    "nextqa": dict(
        prefix="nextqa", text="nextqa_doc_to_text_mc", results="nextqa_mc_process_results", metric="exact_match",
        aggregation="mean", post="",
    ),
    "activitynetqa": dict(
        prefix="activitynetqa", text="activitynetqa_doc_to_text", results="exact", metric="exact", aggregation="mean",
        post="Answer the question using a single word or phrase.",
    ),
}  # fmt: skip
EXACT = """
def exact(doc, results):
    return {"exact": float(results[0].strip().lower() == doc["answer"])}
"""


def documents(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Questions with options, in the fields of each data set, and the videos where its code looks for them."""
    evaluation = evaluation_set(VIDEOS, 8)
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in TASKS}
    for index, episode in enumerate(evaluation.episodes):
        video = f"clip{index}"
        for folder in FOLDERS.values():
            path = home / folder.format(video)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(episode, path)
        for number, question in enumerate(evaluation.questions[index]):
            if question.form != "choice":
                continue
            asked, _, lines = question.prompt.removeprefix("Question:").partition("\nOption:\n")
            options = [line[4:] for line in lines.splitlines() if line[:3] in LETTERS]
            right = LETTERS.index(question.answer)
            answer = options[right]
            made["mvbench"].append(dict(video=f"{video}.mp4", question=asked, candidates=options, answer=answer))
            padded = (options + ["none of these"] * 5)[:5]
            made["nextqa"].append(
                dict(video=video, question=asked, answer=right) | {f"a{i}": option for i, option in enumerate(padded)}
            )
            made["videomme"].append(
                dict(
                    videoID=video, question=asked, options=[f"{'ABCD'[i]}. {o}" for i, o in enumerate(padded[:4])],
                    answer="ABCD"[right], question_id=f"{video}-{number}", duration="short", domain="Knowledge",
                    sub_category="Technology", task_type="Action Recognition",
                )
            )  # fmt: skip
            made["activitynetqa"].append(
                dict(video_name=video, question=asked.rstrip("?"), answer=answer, question_id=str(number), type=0)
            )
    return made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_HOME with the videos, and a folder of tasks."""
    home = tmp_path_factory.mktemp("home")
    tasks = home / "tasks"
    tasks.mkdir()
    for name, rows in documents(home).items():
        data = home / f"{name}.json"
        data.write_text("\n".join(map(json.dumps, rows)))
        (tasks / f"small_{name}.yaml").write_text(COMMON.format(name=name, data=data, **TASKS[name]))
        (tasks / f"{name}.py").write_text(f"from lmms_eval.tasks.{name}.utils import *\n" + EXACT)
    return home


def run(home: Path, out: Path, model_args: str, tasks: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "sharpv", "--model_args", model_args, "--tasks", tasks,
        "--include_path", str(home / "tasks"), "--batch_size", "1", "--device", "cpu", "--output_path", str(out),
        "--log_samples",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home), "OPENAI_API_KEY": "none"}
    environment = {**os.environ, **offline}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


def found(out: Path) -> dict[str, Any]:
    (path,) = out.rglob("*results.json")
    return json.loads(path.read_text())


def test_four_tasks_end_to_end(home, tmp_path):
    tasks = ",".join(f"small_{name}" for name in TASKS)
    done = run(home, tmp_path, "pretrained=pocket,method=sharpv,retention=0.5,memory=0.3,num_frames=8", tasks)
    assert done.returncode == 0, done.stderr[-3000:]
    results = found(tmp_path)
    assert set(results["results"]) == {f"small_{name}" for name in TASKS}
    # pocket was trained on MVBench's wording
    assert results["results"]["small_mvbench"]["mvbench_accuracy,none"] > 50
    throughput = results["throughput"]
    assert throughput["avg_retention_before_llm"] == pytest.approx(0.5, abs=0.01)
    assert throughput["avg_retention_over_layers"] <= 0.5 and 0 < throughput["avg_retention_kv_bytes"] < 1
    assert throughput["avg_ttft_ms"] > 0


def test_dense_and_pruned_see_the_same_prompts(home, tmp_path):
    answers = []
    for folder, method in (("dense", "dense"), ("whole", "sharpv,retention=1.0,memory=off")):
        out = tmp_path / folder
        done = run(home, out, f"pretrained=pocket,method={method},num_frames=8", "small_mvbench")
        assert done.returncode == 0, done.stderr[-3000:]
        (samples,) = out.rglob("*samples*.jsonl")
        answers.append([json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()])
    dense, whole = answers
    assert dense == whole and len(dense) > 0


@pytest.mark.parametrize(
    ("model_args", "sentence"),
    [
        ("pretrained=pocket,method=magic", "unknown method 'magic'"),
        ("pretrained=pocket,keep=0.5", "a configuration has no field 'keep'"),
        ("pretrained=/no/such/folder", "there is no such directory"),
    ],
)
def test_a_failure_is_not_exit_code_0(home, tmp_path, model_args, sentence):
    done = run(home, tmp_path, model_args, "small_mvbench")
    assert done.returncode != 0 and sentence in done.stderr + done.stdout


def test_a_broken_video_is_not_exit_code_0(home, tmp_path):
    path = home / FOLDERS["nextqa"].format("clip0")
    whole = path.read_bytes()
    path.write_bytes(b"not a video")
    try:
        done = run(home, tmp_path, "pretrained=pocket,num_frames=8", "small_nextqa")
    finally:
        path.write_bytes(whole)
    assert done.returncode != 0 and "Cannot read video" in done.stderr
    assert not list(tmp_path.rglob("*results.json"))


def test_a_text_prompt_after_a_video_is_not_counted_as_one(monkeypatch, tmp_path):
    from types import SimpleNamespace

    from sharpv.integrations.lmms_eval import model as ours

    write_clip(evaluation_set(1, 8).episodes[0], tmp_path / "clip.mp4")
    text = {"type": "text", "text": "What moves?"}
    said = [[{"type": "video", "url": str(tmp_path / "clip.mp4")}, text], [text], [text]]
    docs = [[{"role": "user", "content": content}] for content in said]
    asked = ours.SharpVModel("pocket", retention=0.25, num_frames=8, max_new_tokens=4)
    asked.task_dict = {"small": {"test": docs}}
    seen = []
    monkeypatch.setattr(asked, "_log", lambda answers, reports: seen.append((len(answers), len(reports))))
    requests = [SimpleNamespace(args=("", lambda doc: doc, {}, number, "small", "test")) for number in range(3)]
    asked.generate_until(requests)
    assert seen == [(3, 1)]
