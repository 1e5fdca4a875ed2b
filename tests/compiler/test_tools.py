"""Which distributions stages calculate with: two of one module serve alike, and are told apart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.compiler.pipeline import build
from wanc.compiler.stages.stage import tool_version, tool_versions
from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.recipe.load import load
from wanc.runtime import requirements, same_module
from wanc.runtime.same_module import installed

NAMES = ("onnxruntime", "onnxruntime-gpu")


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """`only({"onnxruntime-gpu": "1.31.1"})`: what is there of the two, as Python's own records say."""

    def install(found: dict[str, str]) -> None:
        for name, version in found.items():
            folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        known = same_module.version

        def version_here(name: str) -> str:
            if name in NAMES and name not in found:
                raise same_module.PackageNotFoundError(name)
            return known(name)

        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.setattr(same_module, "version", version_here)

    return install


def test_the_one_for_gpus_serves_as_well_and_has_its_own_name_in_keys(only: Callable[[dict[str, str]], None]) -> None:
    only({"onnxruntime-gpu": "1.31.1"})
    assert installed("onnxruntime") == ("onnxruntime-gpu", "1.31.1")
    assert tool_version("onnxruntime") == "1.31.1"
    assert tool_versions(["onnxruntime"]) == {"onnxruntime-gpu": "1.31.1"}


def test_the_one_for_the_cpu_does_not_serve_for_the_other(only: Callable[[dict[str, str]], None]) -> None:
    only({"onnxruntime": "1.30.0"})
    assert tool_versions(["onnxruntime", "numpy"]).keys() == {"onnxruntime", "numpy"}
    assert installed("onnxruntime-gpu") is None


def test_a_bundle_of_one_runs_with_the_other(only: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    only({"onnxruntime-gpu": "1.31.1"})
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / requirements.FILE).write_text("onnxruntime==1.31.1\n")
    assert requirements.differences(bundle) == []


@pytest.mark.parametrize("engine", [(), ("engine.kind=openvino",), ("engine.targets=[cuda]",)])
def test_without_either_no_build_begins(
    engine: tuple[str, ...], only: Callable[[dict[str, str]], None], tiny_recipe: Path, tmp_path: Path
) -> None:
    """Whatever its engine is: calibration, record and check execute graphs."""
    only({})
    (loaded,) = load(tiny_recipe, list(engine))
    with pytest.raises(UserError) as caught:
        build(loaded, tmp_path / "out", progress=False)
    assert caught.value.message == "building needs the package onnxruntime, which is not installed"
    assert (caught.value.hint, caught.value.exit_code) == ("pip install 'wanc[cpu]'", EXIT_UNAVAILABLE)
    assert not (tmp_path / "out" / "bundles").exists()
