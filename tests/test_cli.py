"""The command line as people and programs meet it: help, exit codes, whole messages, JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import wanc as package
from wanc import cli
from wanc.artifacts.refs import read_ref
from wanc.recipe.json_schema import json_schema
from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest

from .conftest import ROOT, Wanc

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
STAGES = ["resolve", "export", "fuse", "partition", *4 * ["compile"], "engine", "tables", "check", "seal"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages name short paths, and what is written by mistake shows."""
    monkeypatch.chdir(tmp_path)


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, by its words."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path
    for name, child in sorted((children or {}).items()):
        yield from verbs(child, (*path, name))


VERBS = list(verbs(typer.main.get_command(cli.app)))


# Help


def test_the_verbs_are_the_documented_ones() -> None:
    assert {("build",), ("run",), ("verify",), ("recipe", "show"), ("recipe", "check"), ("recipe", "new")} <= {*VERBS}
    assert {("recipe", "schema"), ("store", "ls"), ("store", "why"), ("store", "fsck"), ("store", "gc")} <= {*VERBS}
    assert {("doctor",), ("inspect",)} <= {*VERBS}


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself_with_an_example(wanc: Wanc, verb: tuple[str, ...]) -> None:
    finished = wanc(*verb, "--help")
    assert (finished.code, finished.err) == (0, "")
    assert f"wanc {' '.join(verb)} " in finished.out.splitlines()[0]
    example = finished.out.partition("Example: ")[2]
    assert example.startswith(f"wanc {' '.join(verb)}")


@pytest.mark.parametrize("group", [(), ("recipe",), ("store",)], ids=" ".join)
def test_groups_list_their_verbs(wanc: Wanc, group: tuple[str, ...]) -> None:
    asked = wanc(*group, "--help")
    assert (asked.code, asked.err) == (0, "")
    for verb in VERBS:
        if verb[: len(group)] == group:
            assert f"\n  {verb[len(group)]} " in asked.out
    assert wanc(*group).code == 2, "no verb is a usage error"


def test_python_m_wanc_is_the_same_program() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "wanc", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"wanc {package.__version__}\n", "")


# Errors


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (("frobnicate",), "no such command 'frobnicate'", "wanc"),
        (("build",), "missing argument 'RECIPE'", "wanc build"),
        (("build", "a.yaml", "--frobnicate"), "no such option: --frobnicate", "wanc build"),
        (("run", "bundle", "--prompt", "a"), "missing option '-o' / '--output'", "wanc run"),
        (
            ("run", "bundle", "--prompt", "a", "-o", "a.mp4", "--steps", "many"),
            "invalid value for '--steps': Input should be a valid integer, unable to parse string as an integer",
            "wanc run",
        ),
        (("recipe", "frobnicate"), "no such command 'frobnicate'", "wanc recipe"),
        (("verify", "a", "b"), "got unexpected extra argument(s) (b)", "wanc verify"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_exits_with_2(
    wanc: Wanc, tmp_path: Path, arguments: tuple[str, ...], message: str, command: str
) -> None:
    finished = wanc(*arguments)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == f"error: {message}\nhint: {command} --help\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("recipe",), ("store",)], ids=" ".join)
def test_without_arguments_the_help_is_shown(wanc: Wanc, arguments: tuple[str, ...]) -> None:
    finished = wanc(*arguments)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith(f"Usage: {' '.join(('wanc', *arguments))} ")
    assert "error" not in finished.err


BASE = """\
wanc: 1
name: small
model: {source: nowhere}
shapes: [{name: small, height: 64, width: 64, frames: 17}]
sampling: {steps: 4, shift: 5.0, guidance: {high: 4.0, low: 3.0}}
"""


@pytest.mark.parametrize("verb", [("build",), ("recipe", "check"), ("recipe", "show"), ("store", "why")], ids=" ".join)
def test_an_unknown_recipe_key_is_an_error_with_its_place(wanc: Wanc, tmp_path: Path, verb: tuple[str, ...]) -> None:
    Path("small.yaml").write_text(BASE + "colour: red\n")
    finished = wanc(*verb, "small.yaml")
    assert (finished.code, finished.out, finished.err) == (
        2,
        "",
        "error: small.yaml:6:1: a recipe has no key colour\n"
        "hint: its keys are wanc, name, version, model, shapes, sampling, precision, fuse, quantize, partition, "
        "engine, runtime, evaluate, division, extends, matrix\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("verb", [("build",), ("recipe", "check"), ("store", "why")], ids=" ".join)
def test_a_missing_recipe_is_an_error(wanc: Wanc, verb: tuple[str, ...]) -> None:
    finished = wanc(*verb, "absent.yaml")
    assert (finished.code, finished.out, finished.err) == (
        2,
        "",
        "error: absent.yaml: there is no file absent.yaml\nhint: check the path\n",
    )


def test_a_missing_model_names_the_line_that_asks_for_it(wanc: Wanc, tmp_path: Path) -> None:
    Path("small.yaml").write_text(BASE)
    finished = wanc("build", "small.yaml", "-o", "out")
    assert (finished.code, finished.out, finished.err) == (
        65,
        "",
        "error: small.yaml:3:17: the model cannot be read\n"
        f"caused by: {tmp_path}/nowhere: no such folder\n"
        "hint: the diffusers layout has a model_index.json; the original layout has high_noise_model/ and "
        "low_noise_model/, or, for a single expert, a config.json beside its diffusion_pytorch_model*.safetensors\n",
    )
    assert not Path("out/bundles").exists()


def test_a_wrong_override_says_so(wanc: Wanc, tiny_recipe: Path) -> None:
    finished = wanc("recipe", "check", tiny_recipe, "--set", "sampling.steps=many")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith("error: --set sampling.steps=many")
    assert "Traceback" not in finished.err


def test_a_folder_that_is_no_bundle_does_not_verify(wanc: Wanc) -> None:
    Path("folder").mkdir()
    finished = wanc("verify", "folder")
    assert (finished.code, finished.out, finished.err) == (
        1,
        "",
        "manifest.json: is missing\nerror: folder is not what its manifest says\nhint: do not run it\n",
    )
    finished = wanc("verify", "folder", "--json")
    failures = [{"path": "manifest.json", "reason": "is missing"}]
    assert (finished.code, finished.err) == (1, "")
    assert json.loads(finished.out) == {"ok": False, "id": None, "failures": failures}


def test_a_folder_that_is_no_bundle_does_not_run(wanc: Wanc) -> None:
    Path("folder").mkdir()
    finished = wanc("run", "folder", "--prompt", "a", "-o", "a.mp4")
    assert finished.code != 0
    assert finished.out == ""
    assert finished.err == "error: folder/WANC: is missing\nhint: is this the directory of a bundle?\n"
    assert not Path("a.mp4").exists()


@pytest.mark.parametrize(
    "verb", [("verify", "absent"), ("run", "absent", "--prompt", "a", "-o", "a.mp4")], ids=" ".join
)
def test_an_absent_bundle_is_an_error(wanc: Wanc, verb: tuple[str, ...]) -> None:
    finished = wanc(*verb)
    assert (finished.code, finished.out, finished.err) == (
        66,
        "",
        "error: absent: cannot open the bundle\ncaused by: No such file or directory\n",
    )


def test_an_absent_store_is_an_error(wanc: Wanc) -> None:
    finished = wanc("store", "ls", "-o", "absent")
    assert (finished.code, finished.out, finished.err) == (
        66,
        "",
        "error: absent/store: there is no store here yet\nhint: `wanc build` makes one\n",
    )
    assert not Path("absent").exists()


# Results


def test_a_build_reports_the_bundle_and_every_stage(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    finished = wanc("build", tiny_recipe, "-o", tiny_bundle.parents[1], "--json")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert set(report) >= {"bundle", "id", "stages", "report"}
    assert (report["bundle"], report["id"], report["report"]) == (str(tiny_bundle), Manifest.read(tiny_bundle).id, None)
    assert [stage["name"] for stage in report["stages"]] == STAGES
    for stage in report["stages"]:
        assert set(stage) >= {"name", "seconds", "cached", "peak_rss_bytes"}
        assert stage["seconds"] >= 0
        assert stage["cached"] is (stage["name"] != "resolve")
        assert (stage["peak_rss_bytes"] > 2**20) is (stage["name"] != "resolve")


def test_a_build_says_for_people_where_the_bundle_is(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    finished = wanc("build", tiny_recipe, "-o", tiny_bundle.parents[1])
    assert finished.code == 0
    assert finished.out == f"{tiny_bundle}  {Manifest.read(tiny_bundle).id}\n"
    components = iter(["denoiser_high", "denoiser_low", "text_encoder", "vae_decoder"])
    labels = [f"compile {next(components)}/0" if stage == "compile" else stage for stage in STAGES[1:]]
    assert finished.err == "".join(f"{label}: cached\n" for label in labels)


def test_a_matrix_builds_a_list(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    output = tiny_bundle.parents[1]
    Path("both.yaml").write_text(
        f"extends: {tiny_recipe}\nname: both\nmatrix: {{quick: {{sampling.steps: 2}}, fine: {{sampling.steps: 30}}}}\n"
    )
    reports = json.loads(wanc("build", "both.yaml", "-o", output, "--json").out)
    assert [Path(report["bundle"]).name for report in reports] == ["both-quick", "both-fine"]
    assert len({report["id"] for report in reports}) == 2
    # The variants differ in nothing that an engine depends on; their timesteps are others.
    for report in reports:
        made = [stage["name"] for stage in report["stages"] if not stage["cached"]]
        assert made == ["resolve", "tables", "seal"]
    assert [load("both.yaml")[index].recipe.sampling.steps for index in (0, 1)] == [2, 30]


def test_a_matrix_of_one_is_a_list_too(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    Path("one.yaml").write_text(f"extends: {tiny_recipe}\nname: one\nmatrix: {{only: {{}}}}\n")
    (report,) = json.loads(wanc("build", "one.yaml", "-o", tiny_bundle.parents[1], "--json").out)
    assert Path(report["bundle"]).name == "one-only"


def test_something_else_at_the_destination_is_left_alone(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    output = tiny_bundle.parents[1]
    work = output / "bundles" / "mine" / "notes.txt"
    work.parent.mkdir()
    work.write_text("my work")
    finished = wanc("build", tiny_recipe, "-o", output, "--set", "name=mine", "--json")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == f"error: {work.parent}: exists and is not a bundle\nhint: choose another destination\n"
    assert work.read_text() == "my work"


def test_a_sound_bundle_verifies(wanc: Wanc, tiny_bundle: Path) -> None:
    identity = Manifest.read(tiny_bundle).id
    assert DIGEST.fullmatch(identity)
    finished = wanc("verify", tiny_bundle)
    assert (finished.code, finished.out, finished.err) == (0, f"verified {identity}\n", "")
    finished = wanc("verify", tiny_bundle, "--json")
    assert (finished.code, finished.err) == (0, "")
    assert json.loads(finished.out) == {"ok": True, "id": identity, "failures": []}


def test_run_is_the_bundles_own_run_py(wanc: Wanc, tiny_bundle: Path) -> None:
    options = ["--prompt", "A red circle.", "--frames", "5", "--steps", "2", "--seed", "9", "--json", "-o"]
    finished = wanc("run", tiny_bundle, *options, "wanc.mp4")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert set(report) >= {"video", "frames", "seconds", "peak_rss_bytes", "counters"}
    assert (report["video"], report["frames"]) == ("wanc.mp4", 5)
    own = subprocess.run(
        [sys.executable, tiny_bundle / "run.py", *options, "own.mp4"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert set(json.loads(own.stdout)["counters"]) == set(report["counters"])
    assert Path("own.mp4").read_bytes() == Path("wanc.mp4").read_bytes()


def test_run_passes_on_what_the_bundle_refuses(wanc: Wanc, tiny_bundle: Path) -> None:
    finished = wanc("run", tiny_bundle, "--prompt", "a", "-o", "a.mp4", "--frames", "16")
    assert (finished.code, finished.out, finished.err) == (
        2,
        "",
        "error: 16 frames cannot be made: the first latent frame gives one frame, each other one 4\n"
        "hint: ask for 13 or 17\n",
    )


# Recipes


def test_recipe_show_prints_a_recipe_that_means_the_same(wanc: Wanc, tiny_recipe: Path) -> None:
    finished = wanc("recipe", "show", tiny_recipe, "--set", "sampling.steps=10")
    assert (finished.code, finished.err) == (0, "")
    Path("shown.yaml").write_text(finished.out)
    (shown,), (original,) = load("shown.yaml"), load(tiny_recipe, ["sampling.steps=10"])
    assert shown.recipe == original.recipe
    assert yaml.safe_load(finished.out)["runtime"] == {"threads": 0, "decode": {"tile": "auto"}}, (
        "defaults are filled in"
    )
    (as_json,) = json.loads(wanc("recipe", "show", tiny_recipe, "--json").out)
    assert as_json["sampling"]["steps"] == 20


def test_recipe_check_names_the_bundles(wanc: Wanc, tiny_recipe: Path) -> None:
    assert wanc("recipe", "check", tiny_recipe).out == "ok: tiny-wan\n"
    assert json.loads(wanc("recipe", "check", tiny_recipe, "--json").out) == {"ok": True, "bundles": ["tiny-wan"]}


def test_recipe_schema_is_the_one_in_the_repository(wanc: Wanc) -> None:
    finished = wanc("recipe", "schema")
    assert (finished.code, finished.err) == (0, "")
    assert json.loads(finished.out) == json_schema()
    assert finished.out == (ROOT / "recipes" / "recipe.schema.json").read_text()


def test_recipe_new_writes_a_recipe_that_checks(wanc: Wanc) -> None:
    finished = wanc("recipe", "new", ROOT / "models/tiny-wan", "--name", "my-wan")
    assert (finished.code, finished.err) == (0, "")
    Path("my-wan.yaml").write_text(finished.out)
    assert wanc("recipe", "check", "my-wan.yaml").out == "ok: my-wan\n"


def test_recipe_new_refuses_a_name_that_no_folder_can_have(wanc: Wanc) -> None:
    finished = wanc("recipe", "new", "checkpoints/my-wan", "--name", "my/wan")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith("error: my/wan is no name for a recipe\nhint: it has to be letters, digits")


# The store


def test_store_ls_lists_finished_actions(wanc: Wanc, tiny_bundle: Path) -> None:
    output = tiny_bundle.parents[1]
    records = json.loads(wanc("store", "ls", "-o", output, "--json").out)
    of_tiny = set(read_ref(output / "store/refs/tiny-wan"))  # other tests build into the same store
    stages = {record["stage"] for record in records if record["key"] in of_tiny}
    assert stages == set(STAGES) - {"resolve"}
    for record in records:
        assert set(record) >= {"stage", "key", "bytes", "files", "seconds", "peak_rss_bytes"}
    lines = wanc("store", "ls", "-o", output).out.splitlines()
    assert lines[0].split() == ["stage", "files", "MiB", "seconds", "key"]
    assert [line.split()[0] for line in lines[1:]] == [record["stage"] for record in records]


def test_store_why_tells_what_has_changed(wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path) -> None:
    output = tiny_bundle.parents[1]
    before = "".join(f"{stage}: stored\n" for stage in STAGES[1:-1])
    assert wanc("store", "why", tiny_recipe, "-o", output).out == f"{before}seal: stored\n"
    finished = wanc("store", "why", tiny_recipe, "-o", output, "--set", "sampling.fps=24")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out == (f"{before}seal: would run, because of\n  parameters.lock.recipe.sampling.fps: 16 → 24\n")
    nowhere = wanc("store", "why", tiny_recipe, "-o", "new")
    assert (nowhere.code, nowhere.out) == (66, "")
    assert not Path("new").exists()


def test_a_missing_package_is_named(wanc: Wanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    for name in [name for name in sys.modules if name.startswith("wanc.recipe")]:
        monkeypatch.delitem(sys.modules, name)
    finished = wanc("recipe", "show", "any.yaml")
    assert (finished.code, finished.out) == (69, "")
    assert finished.err == "error: the package yaml is missing\nhint: wanc doctor says how to install it\n"
