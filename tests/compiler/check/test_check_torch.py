"""A torch module is executed eagerly where it is traced, and the build is compared with what it gave."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wanc.compiler.export.torch_module import TorchInput
from wanc.errors import EXIT_REFUSED, UserError, render
from wanc.models.torch_source import find_files

from .planted import PlantedFuse, check_torch

MODULES = """
from torch import nn

def pool():
    return nn.AdaptiveAvgPool2d((3, 2))

def pool_1d():
    return nn.AdaptiveAvgPool1d(3)

def largest():
    return nn.AdaptiveMaxPool1d(2)

def linear():
    return nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.25))
"""
X = {"h, w": (("n", 2, "h", "w"), {"n": 2, "h": 9, "w": 6}), "t": (("n", 2, "t"), {"n": 2, "t": 6})}


@pytest.fixture
def source(tmp_path: Path) -> Mapping[str, Path]:
    (tmp_path / "checked_modules.py").write_text(MODULES)
    return find_files("checked_modules:linear", tmp_path, ())


def check(source: Mapping[str, Path], folder: Path, function: str, x: TorchInput, sizes: Mapping[str, int]) -> Any:
    return check_torch(source, folder, f"checked_modules:{function}", (x,), sizes)


@pytest.mark.parametrize(("function", "sizes"), [("pool", "h, w"), ("pool_1d", "t"), ("largest", "t")])
def test_a_kernel_of_the_example_s_sizes_is_found(
    source: Mapping[str, Path], function: str, sizes: str, tmp_path: Path
) -> None:
    """torch's exporter writes the kernel that gives so many results at the sizes of the example."""
    shape, example = X[sizes]
    with pytest.raises(UserError) as caught:
        check(source, tmp_path, function, TorchInput("x", "float32", shape), example)
    assert caught.value.exit_code == EXIT_REFUSED
    message, hint = render(caught.value).splitlines()
    assert "in the source (at {" in message and message.endswith("It differs from the export on")
    assert hint == (
        "hint: its exporter took sizes of the example for constants: give those sizes as numbers, or export it anew"
    )


def test_weights_that_are_drawn_anew_at_each_call_are_those_of_the_trace(
    source: Mapping[str, Path], tmp_path: Path
) -> None:
    told = check(source, tmp_path, "linear", TorchInput("x", "float32", ("n", 4)), {"n": 3})
    assert told["against"] == "torch, eager"
    trials = told["graphs"]["model/main"]["trials"]
    assert [(entry["inputs"], entry["sizes"]) for entry in trials] == [
        ("noise", {"n": 3}), ("noise", {"n": 6}), ("edges", {"n": 3}),
    ]  # fmt: skip
    assert all(entry["errors"]["engine"] <= 1e-6 for entry in trials)


def test_a_pass_is_found_as_in_an_onnx_file(source: Mapping[str, Path], tmp_path: Path) -> None:
    x, fuse = TorchInput("x", "float32", ("n", 4)), PlantedFuse(None, (), (), "alpha dropped")
    with pytest.raises(UserError, match="It differs from the pass planted of fuse on"):
        check_torch(source, tmp_path, "checked_modules:linear", (x,), {"n": 3}, fuse=fuse)
