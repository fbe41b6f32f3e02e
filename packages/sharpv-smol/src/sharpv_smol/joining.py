"""From the parts to an ordinary checkpoint in the user's cache folder: made once, written at one stroke, checked.

The folder's name carries a fingerprint of the parts, so that a new version of either makes a new one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

from .language import weights_file

DELTAS = Path(__file__).parent / "deltas.safetensors"
MODEL_FILE, CHECKSUM = "model.safetensors", "model.sha256"

logger = logging.getLogger("sharpv")


def checkpoint(deltas: Path = DELTAS, cache: Path | None = None) -> Path:
    """The folder of the joined checkpoint, made if it is not there or damaged.

    Raises:
        ImportError: the extra is not installed.
        FileNotFoundError: this package holds no trained weights.
    """
    if not deltas.exists():
        raise FileNotFoundError(f"no weights in {deltas}; make them with: python -m training.smol.train DIR")
    parts = weights_file()
    if cache is None:
        from platformdirs import user_cache_path

        cache = user_cache_path("sharpv")
    folder = cache / f"smol-{_digest(deltas)[:12]}-{parts.stat().st_size}"
    if folder.exists() and not _sound(folder):
        logger.warning("%s is damaged: it is made again", folder)
        shutil.rmtree(folder)
    if not folder.exists():
        _make(folder, deltas)
    return folder


def _sound(folder: Path) -> bool:
    model, checksum = folder / MODEL_FILE, folder / CHECKSUM
    return model.exists() and checksum.exists() and checksum.read_text() == _digest(model)


def _make(folder: Path, deltas: Path) -> None:
    from safetensors.torch import load_file

    from sharpv.pocket import load as load_pocket

    from .model import build, build_processor, join

    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        model = build(load_pocket()[0])
        join(model, load_file(deltas))
        model.half().save_pretrained(fresh)
        build_processor().save_pretrained(fresh)
        (fresh / CHECKSUM).write_text(_digest(fresh / MODEL_FILE))
        fresh.chmod(0o755)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _slow(file)


def _slow(file) -> str:  # type: ignore[no-untyped-def]
    """Python 3.10 has no ``file_digest``."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
