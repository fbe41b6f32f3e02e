"""A method, a second stage and a family from another package, found by its entry points and used like built-in ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = """
    from dataclasses import dataclass
    from typing import ClassVar
    import torch
    from sharpv import Criterion, Method
    from sharpv.kvcache import STAGES
    from sharpv.methods import METHODS, Scores
    from sharpv.models import Family, register
    from sharpv.models.layout import Layout

    @METHODS.register
    @dataclass(frozen=True)
    class Loudest(Method):
        name: ClassVar[str] = "loudest"
        summary: ClassVar[str] = "tokens of the largest norm"
        adaptive: ClassVar[bool] = False
        order: int = 2

        def score(self, features):
            return Scores(features.float().norm(self.order, dim=-1), torch.ones(len(features)))

    @STAGES.register
    @dataclass(frozen=True)
    class OddLayers(Criterion):
        name: ClassVar[str] = "odd"
        summary: ClassVar[str] = "odd layers forget"

        def measure(self, layer):
            return torch.full((len(layer.hidden),), float(layer.index % 2))

        def forget(self, measured):
            return measured > 0

    def layouts(model, inputs, rows):
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size
        videos, frames = inputs["pixel_values_videos"].shape[:2]
        side = -(-side // 2)
        return [Layout(frames, side, side, trailing=1)] * videos

    register(Family(name="Mine", model_types=("llava_onevision",), examples=(), layouts=layouts, batched_features=True))
"""
METADATA = "Metadata-Version: 2.1\nName: sharpv-outside\nVersion: 1.0\n"
ENTRY_POINTS = """
[sharpv.methods]
loudest = sharpv_outside
[sharpv.second_stages]
odd = sharpv_outside
[sharpv.families]
mine = sharpv_outside
"""
USE = """
    import sharpv, tiny
    from sharpv.models import find_family
    assert "loudest" in sharpv.list_methods() and "llava_onevision" in sharpv.list_models()
    model = tiny.make("llava_onevision")
    inputs = tiny.FAMILIES["llava_onevision"].inputs([[10, tiny.Clip(1), 12, 13]])
    config = sharpv.Config("loudest:order=1", retention=0.5, memory="odd")
    assert sharpv.Config.from_dict(config.to_dict()) == config
    with sharpv.apply(model, config) as pruning:
        model.generate(**inputs, max_new_tokens=2)
    assert pruning.report.retention == 0.5 and find_family(model).name == "Mine"
    assert pruning.report.forgotten == [[False], [True], [False], [True]]
    try:
        sharpv.apply(model, "loudest")
    except ValueError as error:
        assert "keeps a fixed share" in str(error)
    from sharpv.cli.app import app
    from typer.testing import CliRunner
    assert "tokens of the largest norm" in CliRunner().invoke(app, ["methods"]).output
    assert "odd layers forget" in CliRunner().invoke(app, ["stages"]).output
    print("all is well")
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A package as pip leaves it."""
    (tmp_path / "sharpv_outside.py").write_text(textwrap.dedent(CODE))
    facts = tmp_path / "sharpv_outside-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(METADATA)
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def test_what_another_package_registers_is_used_like_what_is_built_in(installed):
    tests = Path(__file__).parent
    paths = [str(installed), str(tests), *(path for path in sys.path if path)]
    code = f"import sys; sys.path[:0] = {paths!r}\n" + textwrap.dedent(USE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "all is well\n", done.stderr[-3000:]


def test_a_name_that_is_taken_is_refused():
    from dataclasses import dataclass
    from typing import ClassVar

    from sharpv.methods import METHODS, Uniform

    @dataclass(frozen=True)
    class Mine(Uniform):
        name: ClassVar[str] = "sharpv"

    with pytest.raises(ValueError, match="a method needs a name of its own, got 'sharpv' for Mine"):
        METHODS.register(Mine)
    assert METHODS["sharpv"].__name__ == "SharpV"
