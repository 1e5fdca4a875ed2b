"""What is not loaded: torch costs seconds and half a gigabyte, and most of wanc never needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# What reading, checking and looking up never need. A stage that has to run gets a process of its own.
HEAVY = {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript"}
MIDDLING = {"numpy", "onnxruntime", "av", "tokenizers", "ftfy", "yaml"}

SCRIPT = """
import json, sys

try:
    {statement}
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    sys.stdout.flush()
    with open({report!r}, "w") as file:
        json.dump(sorted({{name.partition(".")[0] for name in sys.modules}}), file)
"""
MAIN = "from wanc.cli import main; main()"


def loaded_by(statement: str, arguments: list[str], cwd: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the statement."""
    report = cwd / "modules.json"
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(statement=statement, report=str(report)), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return set(json.loads(report.read_text()))


def test_the_package_alone_loads_nothing_but_the_standard_library(tmp_path: Path) -> None:
    added = loaded_by("import wanc", [], tmp_path) - loaded_by("pass", [], tmp_path)
    assert added - sys.stdlib_module_names == {"wanc"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["build", "--help"], ["run", "--help"], ["verify", "--help"], ["store", "--help"]],
    ids=" ".join,
)
def test_help_loads_nothing_that_does_the_work(tmp_path: Path, arguments: list[str]) -> None:
    assert not loaded_by(MAIN, arguments, tmp_path) & (HEAVY | MIDDLING)


def test_reading_a_recipe_loads_no_numbers(tiny_recipe: Path, tmp_path: Path) -> None:
    loaded = loaded_by(MAIN, ["recipe", "show", str(tiny_recipe)], tmp_path)
    assert not loaded & (HEAVY | {"numpy", "onnxruntime", "av", "tokenizers"})
    assert {"pydantic", "yaml"} <= loaded


def test_checking_a_recipe_loads_no_engine(tiny_recipe: Path, tmp_path: Path) -> None:
    """It opens the model, whose headers and schedule are read with numpy, and its tokenizer."""
    loaded = loaded_by(MAIN, ["recipe", "check", str(tiny_recipe)], tmp_path)
    assert not loaded & (HEAVY | {"onnxruntime", "av"})
    assert {"pydantic", "yaml"} <= loaded


def test_verifying_loads_no_engine(tiny_bundle: Path, tmp_path: Path) -> None:
    loaded = loaded_by(MAIN, ["verify", str(tiny_bundle)], tmp_path)
    assert not loaded & (HEAVY | MIDDLING)


def test_a_build_with_nothing_to_do_loads_no_torch(
    tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tiny_bundle.parents[1]
    started = time.perf_counter()
    loaded = loaded_by(MAIN, ["build", str(tiny_recipe), "-o", str(output)], tmp_path)
    seconds = time.perf_counter() - started
    assert not loaded & (HEAVY | {"onnxruntime", "av", "tokenizers"})
    with capsys.disabled():
        print(f"\nno-op build: {seconds:.2f} s from start to exit")


def test_running_a_bundle_loads_no_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ["--prompt", "a", "--frames", "1", "--steps", "1", "-o", "out.mp4"]
    loaded = loaded_by(MAIN, ["run", str(tiny_bundle), *options], tmp_path)
    assert not loaded & HEAVY
    assert {"numpy", "onnxruntime", "av", "tokenizers"} <= loaded
