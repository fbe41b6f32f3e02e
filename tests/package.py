"""The published files: a small wheel with its licences, and an sdist that builds and can test itself.

``make test-package`` runs it; ``make test-package SUITE=--suite`` runs the sdist's whole suite too, in an environment
of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 3_000_000
LICENCES = ("LICENSE", "NOTICE", "MODEL_CARD.md")
PRIVATE = ("training/", "benchmarks/", "tests/", "sharpv_smol/")


def run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, check=True, cwd=cwd)


def require(condition: object, sentence: str) -> None:
    if not condition:
        sys.exit(f"package: {sentence}")


def built(source: Path, out: Path, *options: str) -> list[Path]:
    run(sys.executable, "-m", "build", "--outdir", str(out), *options, str(source))
    return sorted(out.iterdir())


def check_wheel(path: Path) -> None:
    size, names = path.stat().st_size, zipfile.ZipFile(path).namelist()
    require(size <= LARGEST, f"{path.name} has {size:,} bytes, more than {LARGEST:,}")
    for needed in (*LICENCES, "py.typed", "checkpoint/model.safetensors", "entry_points.txt"):
        require(any(name.endswith(needed) for name in names), f"{path.name} lacks {needed}")
    for name in names:
        require(not name.startswith(PRIVATE), f"{path.name} holds {name}")
    print(f"{path.name}: {size / 1e6:.2f} MB, {len(names)} files")


def check_links(path: Path) -> None:
    """On an index page, links into the repository would lead nowhere."""
    wheel = zipfile.ZipFile(path)
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    require("](docs/" not in text and "](CONTRIBUTING" not in text, f"{path.name}: its page links into the repository")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sdist, wheel = sorted(built(ROOT, Path(folder) / "dist"), key=lambda path: path.suffix != ".gz")
        check_wheel(wheel)
        check_links(wheel)
        (smol,) = built(ROOT / "packages" / "sharpv-smol", Path(folder) / "smol", "--wheel")
        inside = zipfile.ZipFile(smol).namelist()
        for needed in LICENCES:
            require(any(name.endswith(needed) for name in inside), f"{smol.name} lacks {needed}")
        print(f"{smol.name}: {smol.stat().st_size / 1e6:.2f} MB")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (unpacked,) = Path(folder).glob("sharpv-*/")
        print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB")
        if "--suite" in sys.argv:
            run("make", "test", f"PYTHON={sys.executable}", cwd=unpacked)
        else:  # collecting reads every file that a test needs at its head
            run(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", cwd=unpacked)


if __name__ == "__main__":
    main()
