"""The files that stand for a torch model: found without importing anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wanc.errors import EXIT_NO_INPUT, CheckpointError, render
from wanc.models.torch_source import find_files, import_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe's folder with a package, a module, and things that are neither."""
    for name in (
        "encoders/__init__.py",
        "encoders/deep/build.py",
        "encoders/deep/weights.bin",
        "encoders/__pycache__/build.cpython-311.pyc",
        "encoders/.git/HEAD",
        "single.py",
        "data/a.txt",
        "data/deeper/b.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('nothing may be imported')")
    return tmp_path


def test_a_package_is_all_of_its_files(folder: Path) -> None:
    files = find_files("encoders.deep.build:make", folder, ())
    assert files == {
        f"module/encoders/{name}": folder / "encoders" / name
        for name in ("__init__.py", "deep/build.py", "deep/weights.bin")
    }
    assert import_root(files) == folder


def test_a_module_is_one_file(folder: Path) -> None:
    files = find_files("single:make", folder, ())
    assert files == {"module/single.py": folder / "single.py"}
    assert import_root(files) == folder


def test_files_listed_in_the_recipe_are_added(folder: Path) -> None:
    files = find_files("single:make", folder, [folder / "data", folder / "single.py"])
    assert set(files) == {"module/single.py", "files/0/a.txt", "files/0/deeper/b.txt", "files/1/single.py"}
    assert import_root(files) == folder


def test_the_recipes_own_folder_comes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "single.py").write_text("")
    (other / "only_there.py").write_text("")
    monkeypatch.syspath_prepend(str(other))
    assert find_files("single:make", folder, ())["module/single.py"] == folder / "single.py"
    assert find_files("only_there:make", folder, ())["module/only_there.py"] == other / "only_there.py"


def test_an_installed_package_is_found_and_not_imported(folder: Path) -> None:
    sys.modules.pop("scipy", None)
    files = find_files("scipy.special:make", folder, ())
    assert "module/scipy/__init__.py" in files
    assert "scipy" not in sys.modules


def test_a_module_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_files("no_such_module.at.all:make", folder, ())
    assert render(caught.value) == (
        f"error: {folder}: there is no module no_such_module beside the recipe or where Python looks\n"
        "hint: install it, or add its folder to PYTHONPATH"
    )
    assert caught.value.exit_code == EXIT_NO_INPUT


def test_a_built_in_module_has_no_files(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no module builtins"):
        find_files("builtins:object", folder, ())


def test_a_listed_file_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_files("single:make", folder, [folder / "absent"])
    assert render(caught.value) == f"error: {folder}/absent: no such file or folder"
    assert caught.value.exit_code == EXIT_NO_INPUT
