"""What a shell completes, asked of the program as the shells' own scripts ask it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from wanc import completion

from .conftest import ROOT


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANC_OUTPUT", raising=False)
    for name in (
        "recipes",
        "artifacts/bundles/tiny",
        "artifacts/bundles/.tiny.0.sealing",
        "other/bundles/mine",
        ".git",
    ):
        Path(name).mkdir(parents=True)
    for name in ("recipes/a.yaml", "b.yml", "notes.txt"):
        Path(name).touch()


def asked(words: str) -> list[str]:
    """What zsh would offer."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from wanc.cli import main; main()"],
        env={**os.environ, "_WANC_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return re.findall(r'^(?:_arguments .*\(\()?"([^"]+)"', done.stdout, flags=re.MULTILINE)


def test_verbs_and_options_are_completed_through_the_shell() -> None:
    assert {"gc", "fsck", "why", "ls"} == {*asked("wanc store ")}
    assert {"--quiet", "--log-file", "--store", "--set"} <= {*asked("wanc build --")}
    assert asked("wanc build x --set fuse.skip=[ro") == ["fuse.skip=[rope]"]


def test_recipes() -> None:
    assert completion.recipes("") == ["artifacts/", "b.yml", "other/", "recipes/", "recipes/a.yaml"]
    assert completion.recipes("recipes/") == ["recipes/a.yaml"]
    assert completion.recipes("n") == completion.recipes("absent/") == []


def test_bundles_are_those_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion.bundles("") == completion.bundles("art") == ["artifacts/bundles/tiny"]
    assert completion.bundles("oth") == ["other/"]
    monkeypatch.setenv("WANC_OUTPUT", "other")
    assert completion.bundles("") == ["other/bundles/mine"]
    monkeypatch.setenv("WANC_OUTPUT", "absent")
    assert completion.bundles("re") == ["recipes/"]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("sampling.st", ["sampling.steps="]),
        ("sampling.solver=u", ["sampling.solver=unipc"]),
        ("engine.kind=open", ["engine.kind=openvino"]),
        ("fuse.passes=[attention", ["fuse.passes=[attention]", "fuse.passes=[attention-heads]"]),
        ("model.components=[vae", ["model.components=[vae_decoder]"]),
        ("quantize.calibrate.obs", ["quantize.calibrate.observer="]),
        ("quantize.emulate=", ["quantize.emulate=true", "quantize.emulate=false"]),
        ("sampling.steps=", []),
        ("colour=", []),
    ],
)
def test_settings(typed: str, expected: list[str]) -> None:
    assert completion.settings(typed) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(shell: str) -> None:
    source = subprocess.run(
        [sys.executable, "-m", "wanc"],
        env={**os.environ, "_WANC_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "_WANC_COMPLETE=complete_" in source.stdout.replace("'", "")


def test_completing_loads_nothing_that_is_slow() -> None:
    """Nor does the program: a shell waits for it."""
    program = """
import sys
from wanc import cli, completion
completion.recipes(""), completion.bundles(""), completion.settings("fuse.skip=[")
print(sorted({"torch", "onnx", "numpy", "diffusers", "rich", "onnxruntime"} & sys.modules.keys()))
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3
