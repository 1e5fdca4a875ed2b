"""A small bundle of which engines are to be built, for two kinds of GPUs, and a machine that has one of them.

There is no GPU here, and no TensorRT: TensorRT-RTX takes its place, by Polygraphy, and builds real engines without one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from wanc.compiler.on_target import child, parent
from wanc.compiler.on_target.child import ChildResult, build_on_target
from wanc.compiler.on_target.gpus import TargetGpu
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.progress import ignore

RTX_IN_PLACE = "tests.compiler.tensorrt.rtx_in_place"
ADA, AMPERE = (
    TargetGpu(f"a GPU of {name}", target, {"CUDA_VISIBLE_DEVICES": number})
    for name, target, number in (("Ada", "sm89", "0"), ("Ampere", "sm80", "1"))
)
WIDTH = 64
RECIPE = """\
wanc: 1
name: small
model: {onnx: m.onnx, example: {rows: 16}}
precision: {compute: bf16}
engine: {kind: tensorrt, targets: [sm89, sm80]}
"""


def write_model(path: Path) -> None:
    """Attention of two heads between four Linears."""
    model = onnx.parser.parse_model(
        '<ir_version: 11, opset_import: ["" : 23]>'
        f"attend (float[1, rows, {WIDTH}] x) => (float[1, rows, {WIDTH}] y) {{"
        " q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)"
        " a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v) y = MatMul (a, wo) }"
    )
    random = np.random.default_rng(3)
    for name in ("wq", "wk", "wv", "wo"):
        weight = random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, path)


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file below a folder, hidden ones included: its digest, and when it was written."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


Build = Callable[..., ChildResult]
Machine = Callable[..., Build]


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle: tests read it, and never change it."""
    root = tmp_path_factory.mktemp("asking")
    write_model(root / "m.onnx")
    (root / "recipe.yaml").write_text(RECIPE)
    (loaded,) = load(root / "recipe.yaml")
    return build(loaded, root / "out", progress=False).bundle


@pytest.fixture
def own(asking: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(asking, tmp_path / "own"))


@pytest.fixture
def on_a_machine_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Build]:
    """`on_a_machine_with(ADA)(bundle)` builds a bundle's child where there are these GPUs, and that builder."""
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("polygraphy")

    def machine(*gpus: TargetGpu, builder: str = RTX_IN_PLACE) -> Build:
        monkeypatch.setattr(child, "visible_gpus", lambda: gpus)
        monkeypatch.setitem(parent.BUILDERS, "tensorrt", builder)

        def built(bundle: Path, output: Path = tmp_path / "out", *, replace: bool = False) -> ChildResult:
            return build_on_target(bundle, output, replace=replace, on_progress=ignore)

        return built

    return machine


@pytest.fixture(scope="session")
def family(asking: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ChildResult, ChildResult]:
    """A child, built for Ada, and of that a child that was built for Ampere. Tests read them."""
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("polygraphy")
    output = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(parent.BUILDERS, "tensorrt", RTX_IN_PLACE)
        patch.setattr(child, "visible_gpus", lambda: (ADA,))
        first = build_on_target(asking, output, replace=False, on_progress=ignore)
        patch.setattr(child, "visible_gpus", lambda: (AMPERE,))
        return first, build_on_target(first.bundle, output, replace=False, on_progress=ignore)


def left_in(folder: Path) -> list[str]:
    """What lies below a folder, hidden names included."""
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
