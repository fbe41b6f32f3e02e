"""A server of the embedded model, as a user starts and asks it; what is broken is refused, and the next is served."""

from __future__ import annotations

import base64
import json
import runpy
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest
from server import data_url, serve

from sharpv import pocket
from sharpv.pocket.world import sample, write_clip

FOLDER = Path(pocket.__file__).parent
OPTIONS = (
    "--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "8",
    "--limit-mm-per-prompt", '{"video": 1, "image": 1}', "--media-io-kwargs", '{"video": {"num_frames": 8}}',
    "--video-pruning-rate", "0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    overrides = json.dumps({"sharpv": {"counting": "pixels"}})
    with serve(FOLDER / "checkpoint", *OPTIONS, "--hf-overrides", overrides, "--allowed-local-media-path", "/") as base:
        yield base


@pytest.fixture(scope="module")
def client(address) -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=120)


def ask(client: openai.OpenAI, url: str, question: str, **options: object):
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
    return client.chat.completions.create(
        model="served",
        messages=[{"role": "user", "content": content}],
        **{"temperature": 0, "max_tokens": 40, **options},
    )


def made(path: Path, seed: int, frames: int = 32) -> Path:
    """A clip of pocket's world."""
    write_clip(sample(np.random.default_rng(seed)), path, fps=8, seconds=frames / 8, scale=1)
    return path


@pytest.mark.parametrize("name", ["mover", "static", "cut"])
def test_clips_are_answered_as_data_and_as_files(name, client):
    clip = FOLDER / "clips" / f"{name}.mp4"
    answers = {
        ask(client, url, "What is the background at last ?").choices[0].message.content.strip()
        for url in (data_url(clip), clip.as_uri())
    }
    assert len(answers) == 1
    assert answers <= {"plain", "striped", "checked", "cloudy"}


def test_the_example_asks_it(address, capsys):
    example = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "serve_and_ask.py"))
    example["main"](FOLDER / "clips" / "mover.mp4", "What is the background ?", address)
    said = capsys.readouterr().out
    assert said.splitlines()[0].strip() and "tokens, after pruning" in said


def test_the_content_decides_what_a_prompt_costs(client):
    moving, still = (
        ask(client, data_url(FOLDER / "clips" / f"{name}.mp4"), "How many objects move ?").usage.prompt_tokens
        for name in ("cut", "static")
    )
    assert still < moving < 8 * 49 // 2 + 10


@pytest.fixture
def clip(tmp_path) -> Path:
    return made(tmp_path / "clip.mp4", seed=5)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "one frame"])
def test_a_broken_clip_is_refused_and_the_next_is_served(kind, client, clip, tmp_path):
    whole = clip.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 3],
        "text": b"this is no video at all",
        "empty": b"",
        # vLLM's default loader, opencv, reads no frame of it
        "one frame": made(tmp_path / "one.mp4", seed=6, frames=1).read_bytes(),
    }[kind]
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, "data:video/mp4;base64," + base64.b64encode(broken).decode(), "How many objects move ?")
    assert len(str(refusal.value)) > 40
    assert ask(client, data_url(clip), "How many objects move ?").choices[0].message.content


@pytest.mark.parametrize("frames", [2, 300])
def test_the_shortest_and_a_long_clip(frames, client, tmp_path):
    path = made(tmp_path / "clip.mp4", seed=6, frames=frames)
    assert ask(client, data_url(path), "What is the background ?").choices[0].message.content


def test_wrong_requests_are_refused_with_a_sentence(client, clip):
    for wrong in ({"max_tokens": -1}, {"extra_body": {"mm_processor_kwargs": {"size": "large"}}}):
        with pytest.raises(openai.APIStatusError) as refusal:
            ask(client, data_url(clip), "How many objects move ?", **wrong)
        assert 400 <= refusal.value.status_code < 500
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="another", messages=[{"role": "user", "content": "hello"}])
    assert ask(client, data_url(clip), "How many objects move ?").choices[0].message.content


def test_fifty_at_once_answer_as_one_by_one(client, tmp_path):
    clips = [data_url(made(tmp_path / f"{seed}.mp4", seed)) for seed in range(10)]
    question = "Describe the video in detail ."

    def say(url: str) -> str:
        return ask(client, url, question).choices[0].message.content

    alone = [say(url) for url in clips]
    with ThreadPoolExecutor(50) as pool:
        together = list(pool.map(say, clips * 5))
    assert together == alone * 5


def test_a_client_that_leaves_leaves_nothing_behind(address, client, clip):
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    content = [{"type": "video_url", "video_url": {"url": data_url(clip)}}, {"type": "text", "text": "What ?"}]
    body = json.dumps({"model": "served", "messages": [{"role": "user", "content": content}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert ask(client, data_url(clip), "How many objects move ?").choices[0].message.content


def test_options_that_do_not_exist_end_the_start_with_a_sentence():
    overrides = json.dumps({"sharpv": {"memory": 0.2}})
    started = serve(FOLDER / "checkpoint", *OPTIONS, "--hf-overrides", overrides)
    with pytest.raises(RuntimeError, match="stage 2 .* is not possible in vLLM"):
        started.__enter__()
