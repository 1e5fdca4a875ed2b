"""What the package promises about what it installs."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import wanc
from wanc import api
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.seal import RUNTIME_REQUIREMENTS
from wanc.compiler.engines.distributions import DISTRIBUTIONS, ON_TARGET, RUN_BY
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.export.torch_module import ExportTorch
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.recipe.schema import EngineSection

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}


def test_the_runtime_extra_is_what_a_bundle_requires() -> None:
    """Besides, a bundle takes the distributions of its engine: the default one's, or those of the extra of its name.

    The default one's are two extras: where it is the CPU's, and where it is a GPU's.
    """
    assert names(EXTRAS["runtime"]) == set().union(*RUNTIME_REQUIREMENTS.values())
    assert names(EXTRAS["cpu"]) == {*DISTRIBUTIONS[EngineSection().kind]}
    ((_, gpu),) = RUN_BY.items()
    (installed,) = (Requirement(text) for text in EXTRAS["gpu"])
    assert {installed.name} == gpu.keys() and installed.specifier.contains(gpu[installed.name])
    built = set(get_args(EngineSection.model_fields["kind"].annotation))
    others = built - {EngineSection().kind}
    assert others
    assert all(names(EXTRAS[kind]) == {*DISTRIBUTIONS[kind]} for kind in others)


def test_what_is_built_on_its_target_is_built_with_one_version() -> None:
    """A bundle names it in its requirements, long before it is installed anywhere."""
    assert set(EXTRAS["tensorrt"]) == {f"{name}=={version}" for name, version in ON_TARGET.items()}
    assert {"wanc", "onnx", "onnx-ir", "onnxscript", "ml-dtypes"} == names(EXTRAS["on-target"])
    assert set(EXTRAS["on-target"]) - {"wanc[tensorrt]"} <= set(EXTRAS["build"]), "the same as where bundles are built"


def test_every_tool_of_the_stages_is_declared() -> None:
    stages = (Export, ExportOnnx, ExportTorch, Fuse, Compile, Assemble, OnnxRuntimeEngine)
    always = {tool for stage in stages for tool in stage.tools}
    assert always <= names(EXTRAS["build"]) | names(EXTRAS["runtime"]) | names(EXTRAS["cpu"])
    assert {*OpenVinoEngine.tools} <= names(EXTRAS["openvino"])


def test_the_promised_extras_exist() -> None:
    promised = {
        "build",
        "runtime",
        "cpu",
        "gpu",
        "tensorrt",
        "tensorrt-rtx",
        "openvino",
        "report",
        "bench",
        "serve",
        "ray",
        "dev",
    }
    assert promised <= EXTRAS.keys()


def test_the_default_install_has_no_torch_and_no_vendor_library() -> None:
    heavy = {"torch", "diffusers", "transformers", "tensorrt", "openvino", "onnxruntime-gpu"}
    assert not heavy & (names(PROJECT["dependencies"]) | names(EXTRAS["runtime"]))


ONE_MODULE = {"onnxruntime", "onnxruntime-gpu"}
"""Whoever installs both has the files of one in the other's place."""


def brought(name: str, *extras: str) -> set[str]:
    """All distributions that installing one with these extras brings, as far as their metadata is here."""
    found: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        asked = waiting.pop()
        name, chosen = asked
        found.add(name)
        if asked in seen:
            continue
        seen.add(asked)
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, texts):
            markers = [{"extra": extra} for extra in ("", *chosen)]
            if requirement.marker is None or any(map(requirement.marker.evaluate, markers)):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def test_one_extra_brings_the_library_for_the_cpu_and_one_that_for_gpus() -> None:
    """So that no others, in whichever company, bring two that overwrite each other's files."""
    assert importlib.metadata.metadata("wanc").get_all("Provides-Extra") == list(EXTRAS), "make setup"
    assert brought("wanc") & ONE_MODULE == set()
    found = {extra: brought("wanc", extra) & ONE_MODULE for extra in EXTRAS}
    assert found.pop("cpu") == {"onnxruntime"} and found.pop("gpu") == {"onnxruntime-gpu"}
    assert found.pop("third-party") == {"onnxruntime"}, "models of others that are tested with"
    assert set().union(*found.values()) == set(), found


def documented() -> list[tuple[str, set[str]]]:
    """Every set of extras that somebody is told to install, with the file that says so."""
    files = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md"), *(ROOT / "wanc").rglob("*.py")]
    told = (
        (file.name, match) for file in files for match in re.findall(r"'(?:wanc|\.)\[([a-z,-]+)\]'", file.read_text())
    )
    return [(name, set(match.split(","))) for name, match in told]


def test_what_anybody_is_told_to_install_brings_one_of_them() -> None:
    told = documented()
    assert (
        "Makefile",
        {"build", "cpu", "dev", "openvino", "tensorrt-rtx", "report", "bench", "ray", "third-party"},
    ) in told
    assert {name for name, _ in told} >= {"README.md", "Makefile", "passes.md"}
    for name, extras in told:
        assert extras <= EXTRAS.keys(), name
        assert not extras >= {"cpu", "gpu"}, name
        assert "build" not in extras or extras & {"cpu", "gpu"}, f"{name} tells to install what builds nothing"


def test_every_default_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = names(PROJECT["dependencies"]) | names(EXTRAS["build"]) | names(EXTRAS["runtime"]) | names(EXTRAS["dev"])
    wanted |= names(EXTRAS["cpu"]) | names(EXTRAS["openvino"]) | names(EXTRAS["report"]) | names(EXTRAS["bench"])
    assert {name.lower() for name in wanted} - {"wanc"} <= pinned


def test_constraints_name_no_host_and_no_path() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text and "/" not in text.replace("# ", "")


def test_what_type_checkers_are_told_is_there_and_ships() -> None:
    stub = (ROOT / "wanc" / "__init__.pyi").read_text("utf-8")
    names = set(re.findall(r"^from wanc\.api import (\w+) as \1$", stub, flags=re.MULTILINE))
    assert names == set(api.__all__)
    assert all(getattr(wanc, name) is getattr(api, name) for name in names)
    with pytest.raises(AttributeError, match="module 'wanc' has no attribute 'absent'"):
        wanc.absent  # noqa: B018
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    assert {"py.typed", "__init__.pyi", "compiler/planner/surveys/*.json"} <= {*shipped["wanc"]} and len(shipped) == 1
    assert all([*(ROOT / "wanc").glob(name)] for name in shipped["wanc"])


def test_whatever_lies_in_the_package_ships() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]["wanc"]
    found = {path for name in shipped for path in (ROOT / "wanc").glob(name)}
    files = {path for path in (ROOT / "wanc").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} == found
