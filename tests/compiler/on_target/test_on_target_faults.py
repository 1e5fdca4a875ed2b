"""How a build on the target ends otherwise: one plain error, nothing left of the child, and the parent as it was."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.bundle.resealed import Change, both, drop, put, rewrite_json, seal_again
from tests.conftest import Wanc
from wanc.artifacts import files
from wanc.artifacts.locks import release, try_lock
from wanc.compiler.on_target import child, parent
from wanc.compiler.on_target.child import ChildResult
from wanc.compiler.on_target.gpus import TargetGpu, alone, visible_gpus
from wanc.errors import EXIT_IO, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, UserError, render
from wanc.runtime.progress import ignore
from wanc.runtime.verify import verify

from .conftest import ADA, AMPERE, RTX_IN_PLACE, Build, Machine, left_in, state_of

HOPPER = TargetGpu("a GPU of Hopper", "sm90", {})
GRAPH = "engines/model/main.s0.sm89.onnx"
SETTINGS = f"{GRAPH}.settings.json"


def refused(build: Build, bundle: Path, out: Path) -> UserError:
    """The error; nothing is left of the child, and the parent is as it was."""
    before, others = state_of(bundle), left_in(out)
    with pytest.raises(UserError) as caught:
        build(bundle, out)
    assert left_in(out) == others
    assert state_of(bundle) == before
    assert ".building" not in render(caught.value), "which is gone"
    return caught.value


@pytest.mark.parametrize(
    ("builder", "message", "code"),
    [
        ("tests.compiler.tensorrt.missing", "tensorrt needs the package tensorrt_rtx_bindings", EXIT_UNAVAILABLE),
        ("tests.compiler.tensorrt.another_version", "tensorrt 1.6.1.120 is installed", EXIT_UNAVAILABLE),
        ("tests.compiler.tensorrt.dying", "model/main: the process that builds its engine ended", EXIT_UNAVAILABLE),
        ("tests.compiler.tensorrt.out_of_memory", "model/main: tensorrt needs more memory", EXIT_UNAVAILABLE),
        ("tests.compiler.tensorrt.in_pieces", "model/main asks for one kernel for ", EXIT_REFUSED),
        ("wanc.compiler.engines.tensorrt.build", "tensorrt needs the package tensorrt", EXIT_UNAVAILABLE),
    ],
)
def test_what_goes_wrong_with_the_builder(
    builder: str, message: str, code: int, on_a_machine_with: Machine, asking: Path, tmp_path: Path
) -> None:
    error = refused(on_a_machine_with(ADA, builder=builder), asking, tmp_path / "out")
    assert error.message.startswith(message) and error.exit_code == code and error.hint
    if "needs the package" in message:
        assert error.hint == "pip install 'wanc[tensorrt]'"


def test_without_the_library_that_executes_graphs(
    on_a_machine_with: Machine, asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is built would be compared with nothing."""
    monkeypatch.setattr("wanc.compiler.stages.stage.installed", lambda name: None)
    error = refused(on_a_machine_with(ADA), asking, tmp_path / "out")
    assert error.message == "building needs the package onnxruntime, which is not installed"
    assert (error.hint, error.exit_code) == ("pip install 'wanc[cpu]'", EXIT_UNAVAILABLE)


def test_no_gpu(wanc: Wanc, asking: Path, tmp_path: Path) -> None:
    """As it is on this machine."""
    if visible_gpus():
        pytest.skip("there is one")
    before = state_of(asking)
    done = wanc("build", "--on-target", asking, "-o", tmp_path / "out")
    assert (done.code, done.out) == (EXIT_UNAVAILABLE, "")
    error, hint = done.err.splitlines()
    assert error == "error: no GPU is visible here, and engines are built on the GPU that executes them"
    assert "CUDA_VISIBLE_DEVICES" in hint
    assert state_of(asking) == before and not (tmp_path / "out").exists()


def test_a_gpu_of_another_kind(on_a_machine_with: Machine, asking: Path, tmp_path: Path) -> None:
    error = refused(on_a_machine_with(HOPPER, HOPPER), asking, tmp_path / "out")
    assert error.message == "the bundle's engines are for sm80 and sm89, and this machine has sm90 (a GPU of Hopper)"


def test_several_gpus_of_which_some_fit(asking: Path) -> None:
    found = parent.Parent.open(asking, ignore).chosen((HOPPER, ADA, replace(ADA, name="a second"), AMPERE))
    assert {file.target: gpu.name for file, gpu in found.items()} == {"sm89": ADA.name, "sm80": AMPERE.name}


@pytest.mark.parametrize(
    ("variables", "number", "expected"),
    [
        ({}, 1, {"CUDA_VISIBLE_DEVICES": "1"}),
        ({"CUDA_VISIBLE_DEVICES": "3, 2"}, 1, {"CUDA_VISIBLE_DEVICES": "2"}),
        ({"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}, 0, {"CUDA_VISIBLE_DEVICES": "MIG-a"}),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"}),
    ],
)
def test_a_process_sees_one_gpu(
    variables: dict[str, str], number: int, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert alone(number) == expected


def test_nothing_to_build(on_a_machine_with: Machine, family: tuple[ChildResult, ChildResult], tmp_path: Path) -> None:
    error = refused(on_a_machine_with(ADA), family[1].bundle, tmp_path / "out")
    assert error.message == "has no engine that is to be built on its target" and error.exit_code == EXIT_USAGE


def test_a_damaged_parent(on_a_machine_with: Machine, own: Path, tmp_path: Path) -> None:
    data = bytearray((own / "engines/model/weights.s0.sm89.bin").read_bytes())
    data[100] ^= 1
    (own / "engines/model/weights.s0.sm89.bin").write_bytes(data)
    error = refused(on_a_machine_with(ADA), own, tmp_path / "out")
    assert "engines/model/weights.s0.sm89.bin has sha256:" in error.message


def test_no_bundle(on_a_machine_with: Machine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the bundle"):
        on_a_machine_with(ADA)(tmp_path / "absent")


def graph_elsewhere(root: Path, _: Any) -> None:
    """Weights that lie outside of the bundle."""
    model = onnx.load_model(root / GRAPH, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../../../secret.bin" if entry.key == "location" else entry.value
    (root / GRAPH).write_bytes(model.SerializeToString())


def torn(root: Path, _: Any) -> None:
    (root / GRAPH).write_bytes((root / GRAPH).read_bytes()[:-40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (graph_elsewhere, "takes 'engines/model/../../../secret.bin', which is not a file of the bundle"),
        (torn, "cannot be read"),
        (rewrite_json(SETTINGS, lambda found: {**found, "profiles": 3}), "has no settings to build it with"),
        (rewrite_json(SETTINGS, lambda found: {}), "has no settings to build it with"),
        (rewrite_json("recipe.lock.json", lambda found: {"recipe": []}), "recipe must be an object, not a list"),
        (rewrite_json("engine_report.json", lambda found: {"others": {}}), "components is missing"),
        (rewrite_json("program.json", lambda found: {}), "is no program: task: Field required"),
        (put("topology", "engines", 0, "engine", value="other"), "asks for engines of 'other'"),
        (put("topology", "engines", 0, "built", value="soon"), "topology.engines[0].built is 'soon', not on-target"),
        (put("created", value="2026-13-01T00:00:00Z"), "2026-13-01T00:00:00Z is no time"),
        (both(drop("topology", "engines", 1), drop("topology", "engines", 0)), "has no engine that is to be built"),
    ],
)
def test_a_parent_that_lies(
    change: Change, message: str, on_a_machine_with: Machine, own: Path, tmp_path: Path
) -> None:
    seal_again(own, change)
    assert verify(own).ok
    (tmp_path / "secret.bin").write_bytes(bytes(2**16))
    error = refused(on_a_machine_with(ADA), own, tmp_path / "out")
    assert message in error.message


def test_a_destination_that_exists(
    on_a_machine_with: Machine, asking: Path, family: tuple[ChildResult, ChildResult]
) -> None:
    error = refused(on_a_machine_with(ADA), asking, family[0].bundle.parents[1])
    assert error.message == "a bundle stands here already" and "--replace" in str(error.hint)
    assert verify(family[0].bundle).ok


def test_something_else_at_the_destination(on_a_machine_with: Machine, asking: Path, tmp_path: Path) -> None:
    work = tmp_path / "out" / "bundles" / "small-sm89" / "work.txt"
    work.parent.mkdir(parents=True)
    work.write_text("mine")
    error = refused(on_a_machine_with(ADA), asking, tmp_path / "out")
    assert error.message == "exists and is not a bundle" and work.read_text() == "mine"


def test_the_parent_is_never_its_child(on_a_machine_with: Machine, own: Path, tmp_path: Path) -> None:
    place = tmp_path / "out" / "bundles" / "small-sm89"
    place.parent.mkdir(parents=True)
    own.rename(place)
    error = refused(lambda *args: on_a_machine_with(ADA)(*args, replace=True), place, tmp_path / "out")
    assert error.message == "is the bundle itself, which is never changed"


def test_a_disk_that_is_too_small(
    on_a_machine_with: Machine, asking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    error = refused(on_a_machine_with(ADA), asking, tmp_path / "out")
    assert error.message.startswith("no space left: ") and error.exit_code == EXIT_IO


def test_an_engine_that_cannot_be_written(on_a_machine_with: Machine, asking: Path, tmp_path: Path) -> None:
    """No file may be larger than this one's half: the builder's writes fail, and it says that all is well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        error = refused(on_a_machine_with(ADA), asking, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.message == "model/main: its engine cannot be written" and error.exit_code == EXIT_IO
    assert "File too large" in render(error)


@pytest.mark.slow
def test_what_a_killed_build_has_left_is_swept(on_a_machine_with: Machine, asking: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "out" / "bundles"
    for name, is_alive in (("dead", False), ("alive", True)):
        (bundles / f".small-sm89.{name}.building").mkdir(parents=True)
        (bundles / f".small-sm89.{name}.building" / "half.engine").write_bytes(b"half")
        descriptor = try_lock(bundles / f".small-sm89.{name}.building" / ".lock")
        assert descriptor is not None
        if not is_alive:
            release(descriptor)
    on_a_machine_with(ADA)(asking, tmp_path / "out")
    assert sorted(path.name for path in bundles.iterdir()) == [".small-sm89.alive.building", "small-sm89"]


def test_a_parent_that_changes_meanwhile(
    on_a_machine_with: Machine, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, real = on_a_machine_with(ADA), child.build_engine

    def changing(*arguments: Any) -> Any:
        (own / SETTINGS).write_bytes((own / SETTINGS).read_bytes())
        return real(*arguments)

    monkeypatch.setattr(child, "build_engine", changing)
    with pytest.raises(UserError, match="was changed since it was verified"):
        build(own, tmp_path / "out")
    assert not left_in(tmp_path / "out")


@pytest.mark.slow
def test_the_verb(monkeypatch: pytest.MonkeyPatch, wanc: Wanc, asking: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(child, "visible_gpus", lambda: (ADA,))
    monkeypatch.setitem(parent.BUILDERS, "tensorrt", RTX_IN_PLACE)
    done = wanc("build", "--on-target", asking, "-o", tmp_path / "out", "--json")
    assert done.code == 0
    result = json.loads(done.out)
    bundle = tmp_path / "out" / "bundles" / "small-sm89"
    assert result == {
        "bundle": str(bundle), "id": verify(bundle).id, "parent": verify(asking).id, "engines": 1, "to_build": 1
    }  # fmt: skip
    again = wanc("build", "--on-target", asking, "-o", tmp_path / "out", "--replace")
    assert again.code == 0 and again.out == f"{bundle}  {verify(bundle).id}\n"
    assert again.err.splitlines()[-1].startswith("1 engines are for other GPUs: there, wanc build --on-target ")


@pytest.mark.parametrize(
    "given", [("--set", "name=a"), ("--variant", "a"), ("--check",), ("--explain", "engine"), ("--keep-going",)]
)
def test_options_of_recipes_say_nothing_here(given: tuple[str, ...], wanc: Wanc, asking: Path) -> None:
    done = wanc("build", "--on-target", asking, *given)
    assert done.code == EXIT_USAGE
    assert done.err.startswith(f"error: {given[0]} would have no effect with --on-target\n")


def test_nothing_is_asked_for_that_a_target_has_not(asking: Path) -> None:
    """No torch, no recipe, no store: what is imported is what the extra installs."""
    import subprocess
    import sys

    program = "import wanc.compiler.on_target.child, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"torch", "diffusers", "transformers", "onnxruntime", "openvino", "tokenizers", "yaml"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.gpu
def test_the_gpus_of_this_machine() -> None:
    found = visible_gpus()
    assert found and all(gpu.target.startswith("sm") and gpu.name and gpu.variables for gpu in found)
