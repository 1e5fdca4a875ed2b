"""Where builds go: options before variables before defaults, and one store for several outputs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import wanc as package
from wanc.artifacts.fsck import check
from wanc.artifacts.gc import clean
from wanc.artifacts.refs import read_place, read_ref
from wanc.artifacts.store import Store
from wanc.compiler.bundle import seal
from wanc.compiler.pipeline import BuildResult, build
from wanc.folders import Folders
from wanc.recipe.load import load
from wanc.runtime.verify import verify

from .conftest import Wanc
from .faults.project import Project, write_project

STAGES = {"export", "fuse", "partition", "compile", "engine", "check"}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("WANC_OUTPUT", "WANC_STORE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return write_project(tmp_path_factory.mktemp("model") / "block")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Of the same name."""
    return write_project(tmp_path_factory.mktemp("other") / "block", width=5, seed=2)


@pytest.fixture
def store(model: Project, tmp_path: Path) -> Path:
    """One that has all of the model's stages; its bundle was another output's."""
    return Path(shutil.copytree(model.recipe.parent / "reference/store", tmp_path / "store"))


@pytest.fixture
def large_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 20 bytes are moved into bundles, as larger ones of 64 MiB are."""
    monkeypatch.setattr(seal, "ADOPT_BYTES", 20)


def build_to(model: Project, output: Path, store: Path) -> BuildResult:
    (loaded,) = load(model.recipe)
    return build(loaded, output, store=store, progress=False)


def computed(result: BuildResult) -> set[str]:
    return {run.name for run in result.stages if not run.cached} - {"resolve", "seal"}


@pytest.mark.parametrize(
    ("given", "variables", "found"),
    [
        ((None, None), {}, ("artifacts", "artifacts/store")),
        ((None, None), {"WANC_OUTPUT": "o"}, ("o", "o/store")),
        ((None, None), {"WANC_STORE": "s"}, ("artifacts", "s")),
        ((None, None), {"WANC_OUTPUT": "", "WANC_STORE": ""}, ("artifacts", "artifacts/store")),
        (("mine", None), {"WANC_OUTPUT": "o"}, ("mine", "mine/store")),
        (("mine", None), {"WANC_STORE": "s"}, ("mine", "s")),
        ((None, "mine"), {"WANC_OUTPUT": "o", "WANC_STORE": "s"}, ("o", "mine")),
    ],
)
def test_options_come_before_variables_and_these_before_defaults(
    given: tuple[str | None, str | None],
    variables: dict[str, str],
    found: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    wanc: Wanc,
    tmp_path: Path,
) -> None:
    """For Python, and for the command line, where the doctor says it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folders = Folders.chosen(*given)
    assert (str(folders.output), str(folders.store)) == found
    monkeypatch.setattr("wanc.doctor.abilities.import_faults", lambda names: {})
    options = [word for flag, value in zip(("-o", "--store"), given, strict=True) if value for word in (flag, value)]
    report = json.loads(wanc("doctor", "--json", *options).out)
    assert (report["output"]["path"], report["store"]["path"]) == tuple(str(tmp_path / name) for name in found)


def test_variables_hold_for_every_verb_and_for_python(
    wanc: Wanc, model: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANC_OUTPUT", "out")
    monkeypatch.setenv("WANC_STORE", "shared")
    result = package.build(model.recipe)
    assert (result.bundle, result.id) == (Path("out/bundles/block"), model.id)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "shared"}
    assert wanc("build", model.recipe, "-q").out == f"out/bundles/block  {model.id}\n"
    (export,) = [line for line in wanc("store", "ls").out.splitlines() if line.startswith("export")]
    key = export.split()[-1]
    assert json.loads(wanc("inspect", key, "--json").out)["stage"] == "export"
    answers = json.loads(wanc("store", "why", model.recipe, "--json").out)
    assert all(answer["stored"] for answer in answers) and answers[-1]["stage"] == "seal"
    assert json.loads(wanc("store", "fsck", "--json").out)["ok"]
    assert json.loads(wanc("store", "gc", "--json").out)["dry_run"] is False
    explained = wanc("build", model.recipe, "--explain", "fuse", "--json")
    assert (explained.code, "fuse" in json.loads(explained.out)) == (0, True)
    assert wanc("build", model.recipe, "--check").err.endswith("out/bundles/block is bit-identical when built again\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "shared"}


def test_two_outputs_share_what_is_finished(model: Project, tmp_path: Path) -> None:
    one = build_to(model, tmp_path / "one", tmp_path / "store")
    two = build_to(model, tmp_path / "two", tmp_path / "store")
    assert computed(one) == STAGES and computed(two) == set()
    assert one.id == two.id == model.id
    assert verify(one.bundle).ok and verify(two.bundle).ok
    assert not (tmp_path / "one/store").exists()
    assert build_to(model, tmp_path / "one", tmp_path / "store").stages[-1].cached, "it stands as it was"


@pytest.mark.usefixtures("large_is_small")
def test_large_files_that_lie_in_one_bundle_are_copied_into_another(
    model: Project, store: Path, tmp_path: Path
) -> None:
    one = build_to(model, tmp_path / "one", store)
    assert list((store / "located").iterdir()), "they were moved"
    two = build_to(model, tmp_path / "two", store)
    assert computed(two) == set()
    assert verify(one.bundle).ok and verify(two.bundle).ok
    shutil.rmtree(two.bundle)
    assert computed(build_to(model, tmp_path / "one", store)) == set(), "the first is still whole"


@pytest.mark.usefixtures("large_is_small")
@pytest.mark.parametrize("removed", ["bundle", "output"])
def test_a_bundle_that_is_removed_costs_another_computation_and_no_more(
    model: Project, store: Path, tmp_path: Path, removed: str
) -> None:
    one = build_to(model, tmp_path / "one", store)
    shutil.rmtree(one.bundle if removed == "bundle" else tmp_path / "one")
    two = build_to(model, tmp_path / "two", store)
    assert two.id == model.id and verify(two.bundle).ok
    assert computed(two) and computed(two) <= STAGES
    assert check(store).ok
    again = build_to(model, tmp_path / "one", store)
    assert verify(again.bundle).ok and computed(again) == set()


@pytest.mark.usefixtures("large_is_small")
def test_a_bundle_that_was_changed_gives_nothing_to_another(model: Project, store: Path, tmp_path: Path) -> None:
    one = build_to(model, tmp_path / "one", store)
    for path in one.bundle.glob("engines/*/*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    two = build_to(model, tmp_path / "two", store)
    assert two.id == model.id and verify(two.bundle).ok


@pytest.mark.usefixtures("large_is_small")
def test_the_store_may_lie_on_another_file_system(model: Project, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not os.access(elsewhere, os.W_OK) or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs another file system")
    store = elsewhere / f"wanc-test-{os.getpid()}"
    try:
        shutil.copytree(model.recipe.parent / "reference/store", store)
        one = build_to(model, tmp_path / "one", store)
        two = build_to(model, tmp_path / "two", store)
        assert one.id == two.id == model.id
        assert verify(one.bundle).ok and verify(two.bundle).ok and computed(two) == set()
        shutil.rmtree(one.bundle)
        assert computed(build_to(model, tmp_path / "one", store)) == set(), "what was copied is still in the store"
        assert check(store).ok
    finally:
        shutil.rmtree(store, ignore_errors=True)


def test_bundles_of_one_name_in_two_outputs_keep_both_what_they_need(
    model: Project, other: Project, tmp_path: Path
) -> None:
    store = Path(shutil.copytree(model.recipe.parent / "reference/store", tmp_path / "one/store"))
    build_to(model, tmp_path / "one", store)
    two = build_to(other, tmp_path / "two", store)
    assert computed(two)
    refs = {path.name: path for path in (store / "refs").iterdir()}
    assert "block" in refs and len(refs) == 2, "beside the store a ref has its bundle's name alone"
    assert {read_place(path) for path in refs.values()} == {
        tmp_path / f"{name}/bundles/block" for name in ("one", "two")
    }
    for path in store.glob("*/*"):
        os.utime(path, (0, 0))
    for path in store.glob("blobs/sha256/*/*"):
        os.utime(path, (0, 0))
    clean(store, days=1)
    for keys in map(read_ref, refs.values()):
        assert all(Store.open(store).lookup(key) for key in keys)
    assert computed(build_to(model, tmp_path / "one", store)) == set()
    assert computed(build_to(other, tmp_path / "two", store)) == set()
    assert two.id == other.id


def test_fsck_reads_the_bundles_of_all_outputs(wanc: Wanc, model: Project, store: Path, tmp_path: Path) -> None:
    build_to(model, tmp_path / "one", store)
    two = build_to(model, tmp_path / "two", store)
    assert wanc("store", "fsck", "--store", store).out.splitlines()[-1] == "2 bundles are sound"
    (two.bundle / "requirements.txt").write_text("changed")
    finished = wanc("store", "fsck", "--store", store)
    assert finished.code == 1
    assert finished.out.splitlines()[0].startswith(f"{two.bundle}/requirements.txt: ")
    assert "1 damaged in bundles: do not run them, a build makes them again" in finished.out.splitlines()
    assert finished.out.splitlines()[-1] == "1 bundle is sound"
    shutil.rmtree(tmp_path / "two")
    assert wanc("store", "fsck", "--store", store).code == 0, "a bundle that is gone is no fault"


@pytest.mark.parametrize("place", [5, "relative", "\u4e00"])
def test_a_ref_that_names_no_place_is_a_finding(model: Project, store: Path, tmp_path: Path, place: object) -> None:
    build_to(model, tmp_path / "one", store)
    (path,) = [path for path in (store / "refs").iterdir() if path.name != "block"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle": place}))
    assert [finding.path for finding in check(store).findings] == [f"refs/{path.name}"]
    assert check(store).ok


def test_another_bundle_at_the_place_of_one_from_a_shared_store_is_told(
    model: Project, other: Project, store: Path, tmp_path: Path
) -> None:
    """As beside the store: what was changed where it stands, and sealed again, is not taken for ours."""
    build_to(model, tmp_path / "one", store)
    shutil.rmtree(tmp_path / "one/bundles/block")
    shutil.copytree(other.recipe.parent / "reference/bundles/block", tmp_path / "one/bundles/block")
    assert build_to(model, tmp_path / "one", store).id == model.id
    assert list((store / "quarantine").glob("block.*")), "it was set aside"


@pytest.mark.parametrize("kind", ["file", "no right", "something else"])
def test_a_store_that_cannot_be_one_is_refused(wanc: Wanc, model: Project, tmp_path: Path, kind: str) -> None:
    store = tmp_path / "store"
    if kind == "file":
        store.write_text("mine")
    elif kind == "no right":
        store = Path("/proc/store")
    else:
        store.mkdir()
        (store / "notes.txt").write_text("mine")
    finished = wanc("build", model.recipe, "--store", store)
    assert finished.code in (2, 65, 74) and finished.out == ""
    assert finished.err.startswith("error: ") and str(store) in finished.err
    assert not (tmp_path / "artifacts/bundles").exists()
