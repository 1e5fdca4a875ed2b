"""The library that engines are built with, looked at before there is any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.compiler import pipeline
from wanc.compiler.engines import distributions
from wanc.errors import EXIT_UNAVAILABLE

RECIPE = """\
wanc: 1
name: small
model: {onnx: m.onnx, example: {rows: 16}}
precision: {compute: bf16}
engine: {kind: tensorrt-rtx, targets: [sm89]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    from tests.compiler.on_target.conftest import write_model

    write_model(tmp_path / "m.onnx")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_another_version_is_refused_before_any_work(
    recipe: Path, wanc: Wanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setitem(distributions.PINNED, "tensorrt-rtx-cu12-libs", "1.8.0.1")  # type: ignore[arg-type]
    done = wanc("build", recipe, "-o", tmp_path / "out")
    assert done.code == EXIT_UNAVAILABLE
    assert done.err.splitlines()[-2:] == [
        "error: tensorrt-rtx is built with tensorrt-rtx-cu12-libs 1.8.0.1, and 1.7.1.116 is installed",
        "hint: pip install 'wanc[tensorrt-rtx]'",
    ]
    assert not list((tmp_path / "out" / "store" / "actions").glob("*"))


def test_a_missing_one_is_too(recipe: Path, wanc: Wanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.TensorRtRtxEngine, "tools", ("tensorrt-rtx-of-nobody",))
    done = wanc("build", recipe, "-o", tmp_path / "out")
    assert done.code == EXIT_UNAVAILABLE
    error, *_, hint = done.err.splitlines()
    assert error == "error: building needs the package tensorrt-rtx-of-nobody, which is not installed"
    assert hint == "hint: pip install 'wanc[tensorrt-rtx]'"
    assert not list((tmp_path / "out" / "store" / "actions").glob("*"))
