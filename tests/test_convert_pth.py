"""Pickles of tensors become safetensors, value by value; any other pickle is refused before it can do anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scripts import convert_pth
from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from tests.conftest import ROOT
from tests.in_the_way import IN_THE_WAY
from wanc.errors import OutputError
from wanc.models.wan.checkpoint import open_checkpoint

BASE = torch.arange(24.0).reshape(4, 6)
TENSORS = {
    "plain": BASE,
    "transposed": BASE.t(),
    "a_row_of_it": BASE[1],
    "expanded": torch.ones(1, 3).expand(4, 3),
    "every_other": BASE[:, ::2],
    "scalar": torch.tensor(2.5),
    "nothing": torch.zeros(0, 3),
    "flag": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    **{
        f"of.{dtype}": (torch.arange(5) - 1).to(dtype)
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8)
    },
}


class Runs:
    """What a hostile pickle holds: a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_every_tensor_arrives(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    assert convert_pth.main([str(tmp_path / "model.pth")]) == 0
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        assert found[name].dtype == expected.dtype and torch.equal(found[name], expected), name
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(tmp_path)) == ["model.pth", "model.safetensors"]


def test_the_file_depends_on_the_tensors_alone(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    torch.save(dict(reversed(TENSORS.items())), tmp_path / "b.pth")
    for name in "ab":
        convert_pth.convert(tmp_path / f"{name}.pth", tmp_path / "out" / f"{name}.safetensors")
    stored = (tmp_path / "out" / "a.safetensors").read_bytes()
    assert stored == (tmp_path / "out" / "b.safetensors").read_bytes()
    assert b"__metadata__" not in stored


def test_a_checkpoint_of_pickles_reads_after_conversion(tmp_path: Path) -> None:
    """As the original repositories are: VAE and text encoder in pickles, which are converted once."""
    root = tmp_path / "model"
    make(MODELS["tiny"].with_layers(1), "original", root, seed=1)
    expected = open_checkpoint(root)
    for stem in ("Wan2.1_VAE", "models_t5_umt5-xxl-enc-bf16"):
        path = root / f"{stem}.safetensors"
        tensors = load_file(path)
        torch.save(tensors, root / f"{stem}.pth")
        path.unlink()
        assert convert_pth.main([str(root / f"{stem}.pth")]) == 0
        assert all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())
    found = open_checkpoint(root)
    for name, component in expected.components.items():
        assert found.components[name].config == component.config
        assert list(found.components[name].weights) == list(component.weights)


def refused(path: Path, capsys: pytest.CaptureFixture[str], code: int = 65) -> str:
    """What people see of a refusal, which leaves nothing behind."""
    before = sorted(os.listdir(path.parent))
    assert convert_pth.main([str(path)]) == code
    assert sorted(os.listdir(path.parent)) == before
    return capsys.readouterr().err.replace(str(path), "FILE").rstrip("\n")


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": BASE, "b": Runs(tmp_path / "made")}, tmp_path / "model.pth")
    expected = "error: FILE: holds more than tensors: it names posix.mkdir, which reading it would run"
    assert refused(tmp_path / "model.pth", capsys) == expected
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": 3}, "a is of type int, not a tensor"),
        ({"state_dict": {"a": BASE}}, "state_dict is of type dict, not a tensor"),
        ([BASE], "is of type list, not tensors by name"),
        ({1: BASE}, "a tensor is called 1"),
        ({"a b": BASE}, "a tensor is called 'a b'"),
        ({"n" * 513: BASE}, f"a tensor is called '{'n' * 99}"),
        (
            {"a": BASE.to(torch.complex64)},
            "a is a tensor of a kind that safetensors does not hold: torch.complex64, torch.strided",
        ),
        (
            {"a": BASE.to_sparse()},
            "a is a tensor of a kind that safetensors does not hold: torch.float32, torch.sparse_coo",
        ),
    ],
)
def test_anything_but_tensors_by_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, expected: str
) -> None:
    torch.save(content, tmp_path / "model.pth")
    assert refused(tmp_path / "model.pth", capsys) == f"error: FILE: {expected}"


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -50])
def test_a_damaged_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int) -> None:
    torch.save(TENSORS, tmp_path / "whole.pth")
    (tmp_path / "model.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:kept])
    assert refused(tmp_path / "model.pth", capsys) == (
        "error: FILE: not a file that torch.save wrote (PyTorch 1.6 or later), or a damaged one\n"
        "hint: is the download complete?"
    )


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(tmp_path / "model.pth", capsys, code=66) == "error: FILE: no such file"


def test_the_pickle_itself_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    before = (tmp_path / "model.pth").read_bytes()
    with pytest.raises(SystemExit) as stop:
        convert_pth.main([str(tmp_path / "model.pth"), "-o", str(tmp_path / "x" / ".." / "model.pth")])
    assert stop.value.code == 2
    assert (tmp_path / "model.pth").read_bytes() == before


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_only_an_ordinary_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    torch.save({"a": BASE}, tmp_path / "model.pth")
    path = tmp_path / "model.safetensors"
    words = IN_THE_WAY[kind](path)
    before = path.lstat()
    assert convert_pth.main([str(tmp_path / "model.pth")]) == 74
    assert words in capsys.readouterr().err
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    (tmp_path / "model.safetensors").write_bytes(b"earlier")

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_pth, "write_tensors", full)
    with pytest.raises(OutputError):
        convert_pth.convert(tmp_path / "model.pth", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == b"earlier"
    assert sorted(os.listdir(tmp_path)) == ["model.pth", "model.safetensors"]


@pytest.mark.parametrize("start", [["-m", "scripts.convert_pth"], ["scripts/convert_pth.py"]])
def test_the_command_line_in_a_process_of_its_own(tmp_path: Path, start: list[str]) -> None:
    torch.save({"a": BASE}, tmp_path / "sound.pth")
    torch.save({"a": Runs(tmp_path / "made")}, tmp_path / "hostile.pth")
    for name, code in (("sound", 0), ("hostile", 65)):
        done = subprocess.run(
            [sys.executable, *start, str(tmp_path / f"{name}.pth")], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    assert torch.equal(load_file(tmp_path / "sound.safetensors")["a"], BASE)
    assert not (tmp_path / "hostile.safetensors").exists() and not (tmp_path / "made").exists()


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert_pth.main(["--help"])
    assert "python -m scripts.convert_pth checkpoints/" in capsys.readouterr().out
