"""A bundle whose engines are built where the GPU is: sealed without one, with a record, and run by nobody yet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Wanc
from wanc.compiler.engines.distributions import ON_TARGET
from wanc.compiler.engines.tensorrt.on_target import BuildSettings
from wanc.compiler.explain import explain_tables
from wanc.inspection.bundle import describe_bundle
from wanc.runtime.api import open_graph
from wanc.runtime.engine_file import to_build
from wanc.runtime.errors import TargetError
from wanc.runtime.manifest import Manifest
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.verify import verify

from .conftest import WIDTH

GRAPH = "engines/model/main.s0.sm89.onnx"


def test_it_holds_graphs_with_their_weights_and_says_so(asking: Path) -> None:
    assert verify(asking).ok
    manifest = Manifest.read(asking)
    entries = manifest.topology["engines"]
    assert isinstance(entries, list)
    assert {(entry["target"], entry["engine"], entry["built"]) for entry in entries} == {  # type: ignore[call-overload, index]
        ("sm89", "tensorrt", "on-target"),
        ("sm80", "tensorrt", "on-target"),
    }
    assert to_build(manifest.topology) == 2
    files = {file.path for file in manifest.files}
    assert files >= {GRAPH, f"{GRAPH}.settings.json", "engines/model/weights.s0.sm89.bin"}
    assert not [name for name in files if name.endswith(".engine")]


def test_it_names_the_versions_that_it_will_take(asking: Path) -> None:
    lines = (asking / "requirements.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in ON_TARGET.items()} <= set(lines)
    tools = json.loads((asking / "recipe.lock.json").read_bytes())["tools"]
    assert not set(tools) & set(ON_TARGET), "nothing was made with them"


def test_its_record_is_what_the_host_computes(asking: Path) -> None:
    inputs, expected = (
        dict(SafetensorsFile(asking / f"golden/{name}.safetensors").items()) for name in ("inputs", "expected")
    )
    assert inputs["model/main/x"].shape == expected["model/main/y"].shape == (1, 16, WIDTH)
    assert np.isfinite(expected["model/main/y"]).all() and expected["model/main/y"].any()
    tolerances = json.loads((asking / "golden/tolerances.json").read_bytes())
    assert tolerances == {"model/main": 3e-2}, "in halves, as the graph asks for"
    check = Manifest.read(asking).check
    assert check["mode"] == "on" and check["graphs"]["model/main"]["compared"]["lowered graph"] == "half"  # type: ignore[call-overload, index]


def test_its_report_names_no_kernels(asking: Path) -> None:
    report = json.loads((asking / "engine_report.json").read_bytes())
    assert (report["engine"], report["version"]) == ("tensorrt", ON_TARGET["tensorrt-cu12"])
    entry = report["components"]["model"]["main"]
    assert (entry["built"], entry["precision"], entry["executed"]) == ("on-target", "half", False)
    assert "kernels" not in entry and "kernels" not in report["others"]["sm80"]["model"]["main"]
    (table,) = explain_tables("engine", report)
    assert table.title.startswith("model/main: ") and table.title.endswith(" nodes"), (
        "what lowering did, and no kernels"
    )


def test_its_settings_say_for_which_sizes(asking: Path) -> None:
    settings = BuildSettings.read(asking / GRAPH, "here")
    (profile,) = settings.profiles
    assert profile["x"] == ((1, 16, WIDTH),) * 3
    assert settings.example == {"rows": 16} and not settings.weight_streaming


def test_who_runs_it_is_told_what_to_do(asking: Path) -> None:
    with pytest.raises(TargetError) as caught:
        open_graph(asking)
    assert caught.value.message == (
        "the engines of model/main are not built yet: that takes a machine with sm89 or sm80"
    )
    assert caught.value.hint == f"there, wanc build --on-target {asking} makes the bundle that runs"


def test_verify_and_inspect_tell_the_state(asking: Path, wanc: Wanc) -> None:
    verified = wanc("verify", asking)
    assert verified.code == 0 and verified.out == f"verified {Manifest.read(asking).id}\n"
    assert verified.err.startswith("2 of its engines are to be built on their target: wanc build --on-target ")
    assert json.loads(wanc("verify", asking, "--json").out)["to_build"] == 2
    shown = wanc("inspect", asking).out
    assert "tensorrt on sm89, to be built there" in shown and "tensorrt on sm80, to be built there" in shown
    operators = describe_bundle(asking)["components"]["model"]["graphs"]["main"]["operators"]
    assert operators["MatMul"] == 6, "four Linears, and the two products of the attention"
