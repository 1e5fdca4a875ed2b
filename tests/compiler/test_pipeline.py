"""Whole builds of a small random checkpoint: what is computed again, what comes out, and what the lock says."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.artifacts.store import Store
from wanc.compiler import pipeline
from wanc.compiler.bundle import seal
from wanc.compiler.pipeline import build, differences, rebuild_and_compare
from wanc.compiler.stages import runner
from wanc.compiler.why import why
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, CheckpointError, RecipeError, UserError, render
from wanc.recipe.load import LoadedRecipe
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

from .builder import RECIPE, Project, Replay

ROOT = Path(__file__).parents[2]
COMPILING = ["compile"] * 4
"""An action for each component."""
STAGES = ["resolve", "export", "fuse", "partition", *COMPILING, "engine", "tables", "check", "seal"]


@pytest.fixture
def copy(project: Project, tmp_path: Path) -> Project:
    return project.copy(tmp_path)


@pytest.fixture
def replay(project: Project, monkeypatch: pytest.MonkeyPatch) -> Replay:
    """Makes stages that run hand out what the finished build has: which ones run is the question here."""
    replay = Replay(Store.open(project.output / "store"), [])
    monkeypatch.setattr(runner, "run_in_worker", replay)
    return replay


def lock_of(bundle: Path) -> dict[str, object]:
    return json.loads((bundle / "recipe.lock.json").read_text())


def computed(result: pipeline.BuildResult) -> list[str]:
    """The stages whose results did not come from the store."""
    return [run.name for run in result.stages if not run.cached]


def test_a_first_build_computes_everything(project: Project) -> None:
    assert computed(project.result) == STAGES
    assert project.result.bundle == project.output / "bundles" / "tiny"
    report = verify(project.result.bundle)
    assert report.ok
    assert report.id == project.result.id
    for run in project.result.stages[1:-1]:
        assert run.peak_rss_bytes > 2**20


def test_a_build_as_json(project: Project) -> None:
    document = project.result.as_json()
    assert json.loads(json.dumps(document)) == document
    assert document.keys() == {"bundle", "id", "stages", "report"}
    assert [stage["name"] for stage in document["stages"]] == STAGES


NO_OP = """
import json, sys
from pathlib import Path
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
(loaded,) = load(sys.argv[1])
result = build(loaded, Path(sys.argv[2]), progress=False)
heavy = {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime"}
print(json.dumps([result.id, [run.cached for run in result.stages], sorted(heavy & sys.modules.keys())]))
"""


def test_a_second_build_does_nothing_and_needs_no_torch(project: Project) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.result.bundle.rglob("*")}
    done = subprocess.run(
        [sys.executable, "-c", NO_OP, str(project.recipe), str(project.output)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [project.result.id, [False, *[True] * (len(STAGES) - 1)], []]
    assert done.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in project.result.bundle.rglob("*")} == before


@pytest.mark.parametrize("override", ["sampling.negative_prompt=blur", "runtime.threads=1", "version=0.2.0"])
def test_what_concerns_the_runtime_alone_only_seals_anew(copy: Project, replay: Replay, override: str) -> None:
    result = build(copy.load(override), copy.output, progress=False)
    assert computed(result) == ["resolve", "seal"]
    assert replay.ran == []
    assert result.id != copy.result.id
    changed = differences(copy.result.bundle, result.bundle)
    assert changed == [] and result.bundle == copy.result.bundle, "it took the place of the other"
    assert build(copy.load(), copy.output, progress=False).id == copy.result.id


@pytest.mark.parametrize("override", ["sampling.steps=3", "sampling.shift=4.0", "sampling.solver=euler"])
def test_another_schedule_compiles_nothing_again(copy: Project, replay: Replay, override: str) -> None:
    build(copy.load(override), copy.output, progress=False)
    assert replay.ran == ["tables"]


def test_the_date_only_seals_anew(copy: Project, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    result = build(copy.load(), copy.output, progress=False)
    assert replay.ran == []
    assert Manifest.read(result.bundle).created == "2023-11-14T22:13:20Z"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert build(copy.load(), copy.output, progress=False).id == copy.result.id


def test_another_tokenizer_runs_everything_again(copy: Project, replay: Replay) -> None:
    with (copy.root / "model/tokenizer/tokenizer.json").open("ab") as stream:
        stream.write(b"\n")
    result = build(copy.load(), copy.output, progress=False)
    # The same program came out: nothing of it is to be fused again.
    assert computed(result) == ["resolve", "export", "engine", "check", "seal"]
    assert replay.ran == ["export", "engine", "check"]
    assert result.id != copy.result.id


@pytest.mark.parametrize("override", ["fuse.skip=[rope]", "fuse.hoist=[time]", "fuse.passes=[fold]"])
def test_other_passes_are_not_traced_again(copy: Project, replay: Replay, override: str) -> None:
    result = build(copy.load(override), copy.output, progress=False)
    assert result.stages[1].cached
    assert replay.ran == ["fuse", "check"], "the finished build's result stands in for another, so that its engines fit"


@pytest.mark.parametrize(
    ("override", "ran"),
    [
        ("engine.allow_unfused=[Attention]", ["engine"]),
        ("model.allow_not_finite=[mask]", [*COMPILING, "engine", "check"]),
    ],
)
def test_what_concerns_the_engine_alone_is_not_fused_again(
    copy: Project, replay: Replay, override: str, ran: list[str]
) -> None:
    result = build(copy.load(override), copy.output, progress=False)
    assert computed(result) == ["resolve", *ran, "seal"]
    assert replay.ran == ran


def change_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_other_weights_of_the_same_model_are_not_traced_again(copy: Project, replay: Replay) -> None:
    change_last_byte(copy.root / "model/vae/diffusion_pytorch_model.safetensors")
    result = build(copy.load(), copy.output, progress=False)
    assert computed(result) == ["resolve", "compile", "engine", "check", "seal"]
    assert replay.ran == ["compile", "engine", "check"]
    assert replay.compiled == ["vae_decoder"], "no denoiser is compiled for another decoder"
    assert result.id != copy.result.id


def test_weights_at_another_place_are_traced_again(copy: Project, replay: Replay) -> None:
    """The program says where in a file each weight lies: a longer header moves them all."""
    path = copy.root / "model/vae/diffusion_pytorch_model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes((length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :])
    build(copy.load(), copy.output, progress=False)
    assert replay.ran == ["export", "compile", "engine", "check"]


def test_a_deleted_bundle_is_sealed_from_the_store(copy: Project, replay: Replay) -> None:
    shutil.rmtree(copy.result.bundle)
    result = build(copy.load(), copy.output, progress=False)
    assert computed(result) == ["resolve", "seal"]
    assert result.id == copy.result.id
    assert verify(result.bundle).ok
    assert replay.ran == []


def test_a_bundle_that_lost_a_file_is_sealed_again(copy: Project, replay: Replay) -> None:
    (copy.result.bundle / "run.py").unlink()
    result = build(copy.load(), copy.output, progress=False)
    assert "seal" in computed(result)
    assert result.id == copy.result.id
    assert verify(result.bundle).ok
    assert replay.ran == []


def test_a_damaged_blob_is_made_again(copy: Project, replay: Replay, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store.open(copy.output / "store")
    (record,) = [record for record in store.records() if record.stage == "engine"]
    blob = store.path(record.files["program.json"])
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(data)))
    shutil.rmtree(copy.result.bundle)
    result = build(copy.load(), copy.output, progress=False)
    assert replay.ran == ["engine"]
    assert result.id == copy.result.id
    assert "is damaged" in capfd.readouterr().err


ELSEWHERE = """
import json, os, sys
from pathlib import Path
import wanc
os.umask(0o077)
from wanc.compiler.pipeline import BuildResult, rebuild_and_compare
from wanc.recipe.load import load
recipe, bundle, bundle_id, package = sys.argv[1:]
assert Path(wanc.__file__).is_relative_to(package)
(loaded,) = load(recipe)
print(json.dumps(rebuild_and_compare(BuildResult(Path(bundle), bundle_id, ()), loaded, progress=False)))
"""


@pytest.mark.slow
def test_a_build_elsewhere_is_bit_identical(project: Project, tmp_path: Path) -> None:
    """Another place for the compiler, recipe, checkpoint and output; another umask, time zone, hash seed, directory."""
    copy = project.copy(tmp_path / "some where" / "else")
    package = tmp_path / "site"
    shutil.copytree(ROOT / "wanc", package / "wanc", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(copy.recipe), str(copy.result.bundle), copy.result.id, str(package)],
        env={
            **os.environ,
            "PYTHONPATH": str(package),
            "PYTHONHASHSEED": "4321",
            "TZ": "Pacific/Auckland",
            "LC_ALL": "C",
            "OMP_NUM_THREADS": "1",
            "HOME": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert [path.name for path in copy.result.bundle.parent.iterdir()] == ["tiny"], "the second build is gone"


def test_a_planted_difference_is_found(
    copy: Project, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rebuild_and_compare(copy.result, copy.load(), progress=False) == []
    assert replay.ran == STAGES[1:-1], "nothing came from the store"
    planted = tmp_path / "run.py"
    planted.write_text(seal.RUN_PY.read_text() + "# planted\n")
    monkeypatch.setattr(seal, "RUN_PY", planted)
    assert rebuild_and_compare(copy.result, copy.load(), progress=False) == ["run.py"]
    assert verify(copy.result.bundle).id == copy.result.id, "the first build stands as it was"
    assert list(copy.result.bundle.parent.iterdir()) == [copy.result.bundle]


def test_a_difference_of_a_stage_is_found(copy: Project, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    def unstable(stage, inputs, out, *, progress):  # type: ignore[no-untyped-def]
        peak = replay(stage, inputs, out, progress=progress)
        if stage.name == "engine":
            (out / "golden/tolerances.json").write_text("{}")
        return peak

    monkeypatch.setattr(runner, "run_in_worker", unstable)
    assert rebuild_and_compare(copy.result, copy.load(), progress=False) == ["golden/tolerances.json"]


def test_a_difference_outside_of_files_is_found(copy: Project, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert rebuild_and_compare(copy.result, copy.load(), progress=False) == ["manifest.json"]
    assert replay.ran == STAGES[1:-1]


def test_the_lock_pins_the_inputs(project: Project) -> None:
    lock = lock_of(project.result.bundle)
    model = project.root / "model"
    used = {
        path.relative_to(model).as_posix()
        for path in model.rglob("*")
        if path.is_file() and "scheduler" not in path.parts and not path.name.endswith(".index.json")
    }
    assert isinstance(lock["inputs"], dict)
    assert lock["inputs"].keys() == used
    for name, entry in lock["inputs"].items():
        data = (model / name).read_bytes()
        assert entry == {"size": len(data), "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}"}


def test_the_lock_pins_tools_and_recipe(project: Project) -> None:
    lock = lock_of(project.result.bundle)
    assert lock.keys() == {"schema", "recipe", "inputs", "tools"}
    tools = lock["tools"]
    assert isinstance(tools, dict)
    assert tools.pop("python") == platform.python_version()
    assert tools == {tool: importlib.metadata.version(tool) for tool in tools}
    assert {"torch", "diffusers", "transformers", "onnx", "onnxruntime", "numpy"} <= tools.keys()
    recipe = lock["recipe"]
    assert isinstance(recipe, dict)
    assert recipe["sampling"]["solver"] == "unipc", "defaults are written down"
    assert "source" not in recipe["model"]
    described = project.load().recipe.model_dump(mode="json", exclude_none=True)
    described["model"] = {"components": ["text_encoder", "denoiser_high", "denoiser_low", "vae_decoder"]}
    assert recipe == described


def test_the_bundle_names_no_path_of_this_machine(project: Project) -> None:
    paths = {str(project.root.parent), str(ROOT), sys.prefix, str(Path.home()), os.getcwd()}
    for path in project.result.bundle.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in paths - {"/", ""}:
                assert secret.encode() not in data, f"{secret} in {path.name}"


def test_the_bundle_holds_what_runs_it(project: Project) -> None:
    manifest = Manifest.read(project.result.bundle)
    names = {file.path for file in manifest.files}
    assert {"run.py", "requirements.txt", "recipe.lock.json", "program.json", "tokenizer/tokenizer.json"} <= names
    runtime = {f"runtime/{path.relative_to(ROOT / 'wanc/runtime')}" for path in (ROOT / "wanc/runtime").rglob("*.py")}
    no_bytecode = {f"{name.rpartition('/')[0]}/__pycache__" for name in runtime}
    assert {name for name in names if name.startswith("runtime/")} == runtime | no_bytecode
    engines = {entry["file"] for entry in manifest.topology["engines"]}  # type: ignore[index, union-attr, call-overload]
    assert engines == {name for name in names if name.endswith(".onnx")}
    assert len(engines) == 4 + 4 + 1 + 2, "two experts in four graphs each, text encoder, decoder"
    requirements = (project.result.bundle / "requirements.txt").read_text().split()
    assert f"numpy=={importlib.metadata.version('numpy')}" in requirements
    assert not any(line.startswith("torch") for line in requirements)


def answers(loaded: LoadedRecipe, output: Path) -> list[str]:
    return [answer.as_text() for answer in why(loaded, output)]


def test_why_of_what_was_never_built(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        why(project.load(), tmp_path)
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert not (tmp_path / "store").exists(), "a question makes no store"
    Store.open(tmp_path / "store")
    (answer,) = why(project.load(), tmp_path)
    assert answer.as_text() == "export: would run: it has never run before"
    assert answer.as_json() == {"stage": "export", "stored": False, "changes": None}


def test_why_of_what_is_built(project: Project) -> None:
    assert answers(project.load(), project.output) == [f"{stage}: stored" for stage in STAGES[1:]]
    assert all(answer.as_json()["changes"] == [] for answer in why(project.load(), project.output))


def test_why_names_the_changed_setting(project: Project) -> None:
    assert answers(project.load("runtime.threads=3"), project.output) == [
        *(f"{stage}: stored" for stage in STAGES[1:-1]),
        "seal: would run, because of\n  parameters.lock.recipe.runtime.threads: 0 → 3",
    ]
    *_, last = why(project.load("runtime.threads=3"), project.output)
    assert last.as_json()["changes"] == [{"path": "parameters.lock.recipe.runtime.threads", "old": 0, "new": 3}]


def test_why_names_the_changed_input(copy: Project) -> None:
    path = copy.root / "model/tokenizer/tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    (answer,) = why(copy.load(), copy.output)
    assert answer.stage == "export"
    assert answer.changes is not None
    (change,) = answer.changes
    assert change.path == "inputs.source"
    assert answer.as_text() == f"export: would run, because of\n  inputs.source: {change.old} → {change.new}"


def test_why_notices_a_deleted_bundle(copy: Project) -> None:
    shutil.rmtree(copy.result.bundle)
    assert answers(copy.load(), copy.output)[-1] == (
        f"seal: would run, because of\n  the bundle: {copy.result.id} → not at its destination"
    )


def test_why_is_right(copy: Project, replay: Replay) -> None:
    """What it announces is what the build then does, and afterwards there is nothing left to say."""
    tokenizer = copy.root / "model/tokenizer/tokenizer.json"
    for override, addition in (("sampling.steps=2", b""), ("sampling.steps=4", b""), ("sampling.steps=4", b"\n")):
        tokenizer.write_bytes(tokenizer.read_bytes() + addition)
        loaded = copy.load(override)
        would_run = [answer.stage for answer in why(loaded, copy.output) if not answer.stored]
        result = build(loaded, copy.output, progress=False)
        ran = [name for name in computed(result) if name != "resolve"]
        assert ran[:1] == would_run[:1]
        assert all(answer.stored for answer in why(loaded, copy.output))
    # Of other steps, and of the checkpoint with another tokenizer.
    assert replay.ran == ["tables", "export", "engine", "check"]


@pytest.mark.parametrize("missing", ["text_encoder", "denoiser_high", "vae_decoder"])
def test_a_component_that_no_bundle_can_do_without(copy: Project, missing: str) -> None:
    kept = [name for name in ("text_encoder", "denoiser_high", "vae_decoder") if name != missing]
    text = RECIPE.replace("  source: model\n", f"  source: model\n  components: [{', '.join(kept)}]\n")
    copy.recipe.write_text(text)
    for action in actions(copy):
        with pytest.raises(RecipeError) as caught:
            action(copy.load())
        assert render(caught.value) == (
            f"error: {copy.recipe}:5:15: a text-to-video bundle needs the component {missing}\n"
            "hint: leave components out to build all of the model's"
        )


def test_a_missing_checkpoint(copy: Project) -> None:
    shutil.rmtree(copy.root / "model")
    for action in actions(copy):
        with pytest.raises(CheckpointError) as caught:
            action(copy.load())
        assert caught.value.exit_code == EXIT_DATA
        assert render(caught.value) == (
            f"error: {copy.recipe}:4:11: the model cannot be read\n"
            f"caused by: {copy.root / 'model'}: no such folder\n"
            "hint: the diffusers layout has a model_index.json; the original layout has high_noise_model/ and "
            "low_noise_model/, or, for a single expert, a config.json beside its diffusion_pytorch_model*.safetensors"
        )


def actions(project: Project) -> list[Callable[[LoadedRecipe], object]]:
    """A build, and the question what one would do: both find the same faults."""
    return [
        lambda loaded: build(loaded, project.output, progress=False),
        lambda loaded: why(loaded, project.output),
    ]


def test_a_configuration_of_another_model_is_found_before_any_work(copy: Project) -> None:
    config = copy.root / "model/transformer/config.json"
    config.write_text(config.read_text().replace('"ffn_dim": 32', '"ffn_dim": 40'))
    for action in actions(copy):
        with pytest.raises(CheckpointError) as caught:
            action(copy.load())
        assert "ffn.net.0.proj" in render(caught.value)
        assert str(copy.root / "model/transformer") in render(caught.value)


def test_a_fault_of_the_weights_comes_out_of_the_worker(copy: Project) -> None:
    """Headers and configuration are right: only who reads the weights can notice."""
    weights, *_ = sorted((copy.root / "model/transformer").glob("*.safetensors"))
    with weights.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\xff" * 4)
    with pytest.raises(CheckpointError) as caught:
        build(copy.load(), copy.output, progress=False)
    assert "denoiser_high: tensor" in caught.value.message
    assert "not finite" in caught.value.message
    assert caught.value.where == str(weights)
    assert verify(copy.result.bundle).id == copy.result.id, "the old bundle is left alone"
