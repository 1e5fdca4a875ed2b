"""Torch modules through the stages: what the engine gives is what eager gives, at other sizes too."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.export.torch_module import ExportTorch, TorchInput
from wanc.compiler.fuse import Fuse
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import Program, weight_files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.models.torch_module import load_module
from wanc.models.torch_source import find_files
from wanc.runtime.session import Session

MODULES = """
import torch
from torch import nn

def mean_bag():
    torch.manual_seed(0)
    return nn.EmbeddingBag(10, 4, mode="mean")

def weighted_bag():
    torch.manual_seed(0)
    bag = nn.EmbeddingBag(10, 4, mode="sum")
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = bag
        def forward(self, ids, weights):
            return self.bag(ids, per_sample_weights=weights)
    return Weighted()

def largest_bag():
    torch.manual_seed(0)
    return nn.EmbeddingBag(10, 4, mode="max")

def double():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()

class Solve(nn.Module):
    "Float32 outside, and float64 where the difference of two large numbers counts."
    def __init__(self):
        super().__init__()
        self.register_buffer("origin", torch.tensor([1e8, 2e8, 3e8], dtype=torch.float64))
    def forward(self, x):
        return ((x.double() + self.origin) - self.origin).float()

class Scaled(nn.Module):
    "Weights in float64 that float32 would round to infinity and to zero."
    def __init__(self):
        super().__init__()
        self.high = nn.Parameter(torch.tensor([1e300, 1e-300, 1.0], dtype=torch.float64))
    def forward(self, x):
        return x * self.high
"""
IDS = TorchInput("ids", "int64", ("n", "t"))
X = TorchInput("x", "float64", ("n", 3))
CASES: dict[str, tuple[TorchInput, ...]] = {
    "mean_bag": (IDS,),
    "double": (X,),
    "Scaled": (X,),
    "largest_bag": (IDS,),
    "weighted_bag": (IDS, TorchInput("weights", "float32", ("n", "t"))),
    "Solve": (TorchInput("x", "float32", ("n", 3)),),
}
QUICK = {"mean_bag", "double", "Scaled"}
NUMPY = {"int64": np.int64, "float32": np.float32, "float64": np.float64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "wanc_test_values.py").write_text(MODULES)
    return folder


@pytest.mark.parametrize(
    "factory", [*CASES][:3] + [pytest.param(name, marks=pytest.mark.slow) for name in [*CASES][3:]]
)
def test_the_engine_gives_what_eager_gives(
    folder: Path, tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"wanc_test_values:{factory}"
    source = find_files(name, folder, ())
    sizes = {size: 2 + number for number, size in enumerate(("n", "t")) if any(size in e.shape for e in CASES[factory])}
    (tmp_path / "program").mkdir()
    ExportTorch(name, CASES[factory], None, sizes, {}).run({"source": source}, tmp_path / "program", progress=False)
    session = compiled(tmp_path, source)
    for other in ({"n": 2, "t": 3}, {"n": 5, "t": 4}, {"n": 1, "t": 1}):
        given = feeds(CASES[factory], other)
        with torch.no_grad():
            expected = load_module(name, folder)(*map(torch.from_numpy, given.values())).numpy()
        (actual,) = session.run(given).values()
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e-12 if expected.dtype == np.float64 else 1e-5, atol=1e-6)


def compiled(folder: Path, source: Mapping[str, Path]) -> Session:
    (folder / "fused").mkdir()
    exported = files_in(folder / "program")
    Fuse(None, (), ()).run({"program": exported, "exported": exported}, folder / "fused", progress=False)
    files = exported | files_in(folder / "fused")
    program = Program.read(files["program.json"])
    model = ComponentFiles("model", program.components["model"], files, weight_files(files, source))
    (folder / "engine").mkdir()
    made = compile_segment(OnnxRuntimeCompiler(), model, whole(model), CPU, folder / "engine", FiniteCheck("model", ()))
    return Session("onnxruntime", folder / "engine" / made.files[0].file, threads=1)


def files_in(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def feeds(inputs: tuple[TorchInput, ...], sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    given: dict[str, np.ndarray[Any, Any]] = {}
    for entry in inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in entry.shape]
        values = random.integers(0, 10, shape) if entry.dtype == "int64" else random.normal(size=shape)
        given[entry.name] = values.astype(NUMPY[entry.dtype])
    return given
