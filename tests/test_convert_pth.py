"""Pickles of tensors become safetensors, value by value; any other pickle is refused before it can do anything."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - what is refused here
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from tests.conftest import ROOT
from tests.in_the_way import IN_THE_WAY
from wanc import cli
from wanc.compiler.convert import convert
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


def main(arguments: list[str]) -> int:
    """`wanc convert ARGUMENTS…`: how it ends."""
    with patch.object(sys, "argv", ["wanc", "convert", *arguments]), pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_every_tensor_arrives(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    assert main([str(tmp_path / "model.pth")]) == 0
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
        convert(tmp_path / f"{name}.pth", tmp_path / "out" / f"{name}.safetensors")
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
        assert main([str(root / f"{stem}.pth")]) == 0
        assert all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())
    found = open_checkpoint(root)
    for name, component in expected.components.items():
        assert found.components[name].config == component.config
        assert list(found.components[name].weights) == list(component.weights)


@pytest.mark.parametrize(
    ("saved", "taken"),
    [
        ({"generator": 1.0, "generator_ema": 2.0, "critic": 3.0}, 2.0),
        ({"generator": 1.0, "critic": 3.0}, 1.0),
    ],
)
def test_a_denoiser_in_the_checkpoint_of_a_training(tmp_path: Path, saved: dict[str, float], taken: float) -> None:
    """As Self-Forcing and CausVid publish theirs: the averaged weights if there are any, and names without wrappers."""
    names = ["model.blocks.0.ffn.0.weight", "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.norm3.bias"]
    torch.save(
        {key: {name: torch.full((2,), value) for name in names} for key, value in saved.items()}, tmp_path / "a.pt"
    )
    assert main([str(tmp_path / "a.pt")]) == 0
    found = load_file(tmp_path / "a.safetensors")
    assert {name: value[0].item() for name, value in found.items()} == {
        "blocks.0.ffn.0.weight": taken,
        "blocks.0.norm3.bias": taken,
    }


def refused(path: Path, capfd: pytest.CaptureFixture[str], code: int = 65) -> str:
    """What people see of a refusal, which leaves nothing behind."""
    before = sorted(os.listdir(path.parent))
    assert main([str(path)]) == code
    assert sorted(os.listdir(path.parent)) == before
    return capfd.readouterr().err.replace(str(path), "FILE").rstrip("\n")


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": BASE, "b": Runs(tmp_path / "made")}, tmp_path / "model.pth")
    expected = "error: FILE: holds more than tensors: it names posix.mkdir, which reading it would run"
    assert refused(tmp_path / "model.pth", capfd) == expected
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
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: object, expected: str
) -> None:
    torch.save(content, tmp_path / "model.pth")
    assert refused(tmp_path / "model.pth", capfd) == f"error: FILE: {expected}"


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -50])
def test_a_damaged_file_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], kept: int) -> None:
    torch.save(TENSORS, tmp_path / "whole.pth")
    (tmp_path / "model.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:kept])
    assert refused(tmp_path / "model.pth", capfd) == (
        "error: FILE: not a file that torch.save wrote (PyTorch 1.6 or later), or a damaged one\n"
        "hint: is the download complete?"
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_in_an_older_form(tmp_path: Path, capfd: pytest.CaptureFixture[str], protocol: int) -> None:
    """Of numpy, say, or of PyTorch before 1.6."""
    (tmp_path / "model.pth").write_bytes(pickle.dumps({"a": 3}, protocol))
    assert refused(tmp_path / "model.pth", capfd) == (
        "error: FILE: a pickle that is not in the form which torch.save writes since PyTorch 1.6\n"
        "hint: where you trust it, load it with torch.load and save it with torch.save once more"
    )


def test_a_file_that_is_safetensors_already(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_file({"a": BASE}, tmp_path / "model.safetensors")
    assert refused(tmp_path / "model.safetensors", capfd, code=2) == (
        "error: FILE: safetensors already, by its name\nhint: there is nothing to convert"
    )


def test_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pth").mkdir()
    assert refused(tmp_path / "model.pth", capfd) == (
        "error: FILE: is a folder\nhint: name the files in it, such as *.pth"
    )


def test_no_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refused(tmp_path / "model.pth", capfd, code=66) == "error: FILE: no such file"


def test_the_pickle_itself_is_no_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    before = (tmp_path / "model.pth").read_bytes()
    assert main([str(tmp_path / "model.pth"), "-o", str(tmp_path / "." / "model.pth")]) == 2
    assert "hint: name another file, such as model.safetensors" in capfd.readouterr().err
    assert (tmp_path / "model.pth").read_bytes() == before


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_only_an_ordinary_file_is_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    torch.save({"a": BASE}, tmp_path / "model.pth")
    path = tmp_path / "model.safetensors"
    words = IN_THE_WAY[kind](path)
    before = path.lstat()
    assert main([str(tmp_path / "model.pth")]) == 74
    assert words in capfd.readouterr().err
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    (tmp_path / "model.safetensors").write_bytes(b"earlier")

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wanc.compiler.convert.write_tensors", full)
    with pytest.raises(OutputError):
        convert(tmp_path / "model.pth", tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == b"earlier"
    assert sorted(os.listdir(tmp_path)) == ["model.pth", "model.safetensors"]


def test_the_command_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Anywhere, and with no checkout: what is installed is enough."""
    torch.save({"a": BASE}, tmp_path / "sound.pth")
    torch.save({"a": Runs(tmp_path / "made")}, tmp_path / "hostile.pth")
    for name, code in (("sound", 0), ("hostile", 65)):
        done = subprocess.run(
            [sys.executable, "-m", "wanc", "convert", f"{name}.pth"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
    assert torch.equal(load_file(tmp_path / "sound.safetensors")["a"], BASE)
    assert not (tmp_path / "hostile.safetensors").exists() and not (tmp_path / "made").exists()


def test_several_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{name}.pth") for name in "ab"]
    for file in files:
        torch.save({"a": BASE}, file)
    assert main([*files, "-o", str(tmp_path / "c.safetensors")]) == 2
    assert "hint: leave it out, or convert one" in capfd.readouterr().err
    assert main(files) == 0
    assert capfd.readouterr().out.splitlines() == [str(tmp_path / f"{name}.safetensors") for name in "ab"]
