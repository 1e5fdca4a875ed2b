"""A file of gates: the recipe's grammar, and every fault with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.gates_file import read_gates

from ..conftest import Wanc


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.yaml"
    path.write_text(text, "utf-8")
    return path


def test_gates_are_read_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path, "# ours\npsnr_db: '>= 30'\nvelocity_error: '<= 1.05 baseline'\nvmaf: '<= 3 floors'\n")
    expected = [("psnr_db", ">= 30"), ("velocity_error", "<= 1.05 baseline"), ("vmaf", "<= 3 floors")]
    assert list(read_gates(path).items()) == expected


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("", "1:1", "the file holds no gates", "psnr_db"),
        ("{}", "1:1", "the file holds no gates", "psnr_db"),
        ("- psnr_db", "1:1", "has to be a mapping of gates", "psnr_db"),
        ("0", "1:1", "has to be a mapping of gates", "psnr_db"),
        ("ssim: '>= 0.9'\npsnr_bd: '>= 30'", "2:1", "'psnr_bd' is no gate", "did you mean psnr_db?"),
        ("xyz: '>= 30'", "1:1", "'xyz' is no gate", "the gates are psnr_db, "),
        ("psnr_db: '>= 30'\npsnr_db: '>= 40'", "2:1", "the key psnr_db stands twice", "first at"),
        ("psnr_db: 30", "1:10", "psnr_db: 30 is no demand", "a demand is such as"),
        ("psnr_db:", "1:9", "psnr_db: null is no demand", "a demand is such as"),
        ("psnr_db: [1]", "1:10", "psnr_db: a list is no demand", "a demand is such as"),
        ("psnr_db: '= 30'", "1:10", "psnr_db: '= 30' is no demand", "a demand is such as"),
        ("step_seconds: '<= 2 floors'", "1:15", "'<= 2 floors' cannot be judged", "no noise floor"),
        ("psnr_db: >= 30", "1:11", "not valid YAML", "put quotes around text that begins with > or |"),
    ],
)
def test_faults_have_their_places(text: str, place: str, message: str, hint: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_gates(path)
    assert caught.value.where == f"{path}:{place}"
    assert message in caught.value.message and hint in (caught.value.hint or "")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "psnr: '>= 30'\nssim: much\n")
    with pytest.raises(RecipeError, match=r"'psnr' is no gate\n  also .*gates.yaml:2:7: ssim: 'much' is no demand"):
        read_gates(path)


@pytest.mark.parametrize("text", [None, "psnr: '>= 30'"])
def test_they_are_read_before_anything_is_made(
    text: str | None, wanc: Wanc, tiny_bundle: Path, evaluated: Path, tmp_path: Path
) -> None:
    path = tmp_path / "gates.yaml" if text is None else written(tmp_path, text)
    done = wanc("report", tiny_bundle, "--recipe", evaluated, "--gates", path, "-o", tmp_path / "out")
    assert (done.code, done.out) == (2, "") and done.err.startswith(f"error: {path}")
    assert not (tmp_path / "out").exists()
