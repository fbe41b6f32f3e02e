"""``vllm serve`` on loopback, as a user starts it, and an openai client."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

STARTS_WITHIN = 300.0
ON_A_SMALL_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""What vLLM reads from the environment, where it shares a few cores with other things."""


def data_url(path: Path) -> str:
    """A clip as it is sent in a request."""
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[str]:
    """A server for the checkpoint in ``folder``, by its address; ended at exit.

    Raises:
        RuntimeError: it ended by itself, with what it printed last.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("vllm")), "serve", str(folder), "--served-model-name", "served",
        "--host", "127.0.0.1", "--port", str(port), "--enforce-eager", *options,
    ]  # fmt: skip
    # its processes are its own; that they run apart is what a user has
    environment = {**os.environ, **ON_A_SMALL_CPU, "VLLM_ENABLE_V1_MULTIPROCESSING": "1", "NO_PROXY": "127.0.0.1"}
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0)
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)


def _wait(server: subprocess.Popen[Any], address: str, log: Any) -> None:
    started = time.monotonic()
    while not _healthy(address):
        if server.poll() is not None or time.monotonic() - started > STARTS_WITHIN:
            log.seek(0)
            raise RuntimeError(f"vllm serve did not start:\n{log.read()[-8000:]}")
        time.sleep(1)


def _healthy(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except (URLError, OSError):
        return False
