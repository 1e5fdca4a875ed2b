"""What the package promises about what it installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

import wanc
from wanc import api
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.seal import RUNTIME_REQUIREMENTS
from wanc.compiler.engines.distributions import DISTRIBUTIONS, ON_TARGET
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
    """Besides, a bundle takes the distributions of its engine: the default one's, or those of the extra of its name."""
    assert names(EXTRAS["runtime"]) == {
        *set().union(*RUNTIME_REQUIREMENTS.values()), *DISTRIBUTIONS[EngineSection().kind]
    }  # fmt: skip
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
    assert always <= names(EXTRAS["build"]) | names(EXTRAS["runtime"])
    assert {*OpenVinoEngine.tools} <= names(EXTRAS["build"]) | names(EXTRAS["runtime"]) | names(EXTRAS["openvino"])


def test_the_promised_extras_exist() -> None:
    promised = {
        "build",
        "runtime",
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


def test_every_default_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = names(PROJECT["dependencies"]) | names(EXTRAS["build"]) | names(EXTRAS["runtime"]) | names(EXTRAS["dev"])
    wanted |= names(EXTRAS["openvino"]) | names(EXTRAS["report"]) | names(EXTRAS["bench"])
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
    assert shipped == {"wanc": ["py.typed", "__init__.pyi", "compiler/planner/surveys/*.json"]}
    assert all([*(ROOT / "wanc").glob(name)] for name in shipped["wanc"])
