"""`wanc doctor`: abilities and their states, the verdict, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wanc import cli
from wanc.doctor import abilities, report
from wanc.doctor.abilities import ABILITIES, Ability, find, is_built
from wanc.doctor.distributions import Distribution, look_up
from wanc.doctor.machine import Gpu, Machine
from wanc.doctor.report import examine
from wanc.errors import EXIT_UNAVAILABLE
from wanc.recipe import planned
from wanc.terminal import as_text

from ..conftest import ROOT, Wanc

ROAD = {"recipe", "build", "run", "video"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# The table


def named(name: str) -> Ability:
    (ability,) = [ability for ability in ABILITIES if ability.name == name]
    return ability


def test_every_extra_that_users_install_is_an_ability() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {ability.extra for ability in ABILITIES} == {"", *extras} - {"dev", "third-party"}


def test_what_is_called_later_has_no_verb_yet() -> None:
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert not {ability.name for ability in ABILITIES if ability.later} & verbs.keys()


def test_what_a_recipe_is_refused_for_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(is_built(named(name)) for name in ("openvino", "tensorrt-rtx", "tensorrt", "on-target"))
    assert is_built(named("run-cuda"))
    assert is_built(named("report"))
    monkeypatch.setitem(planned.VALUES, "engine.kind", ("tensorrt-rtx",))
    assert not is_built(named("tensorrt-rtx"))
    monkeypatch.setattr(planned, "KEYS", ("evaluate",))
    assert not is_built(named("report"))


# States


Faults = Callable[..., None]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """`faults(numpy="…")` makes distributions faulty; nothing is imported as a trial unless it is said to fail."""

    def install(found: Mapping[str, Distribution] = {}, **broken: str) -> None:
        monkeypatch.setattr(abilities, "look_up", lambda name, wanted: found.get(name) or look_up(name, wanted))
        monkeypatch.setattr(abilities, "import_faults", lambda names: {n: f for n, f in broken.items() if n in names})

    install()
    return install


def states(has_gpu: bool = False) -> dict[str, tuple[str, tuple[str, ...], str | None]]:
    return {entry.ability.name: (entry.state, entry.lacks, entry.install) for entry in find(has_gpu=has_gpu)}


def test_what_is_installed_is_ok(faults: Faults) -> None:
    found = states()
    assert {name for name, (state, _, _) in found.items() if state == "ok"} == ROAD | {
        "openvino",
        "tensorrt-rtx",
        "report",
        "bench",
        "ray",
    }
    assert found["build"] == ("ok", (), None)


def test_what_is_not_built_yet_is_not_asked_to_be_installed(faults: Faults) -> None:
    found = states()
    state, _, install = found["serve"]
    assert (state, install) == ("not built yet", None)


def test_the_library_for_gpus_takes_the_place_of_the_other(faults: Faults) -> None:
    """Beside it, either would have the other's files."""
    state, lacks, install = states()["run-cuda"]
    assert (state, lacks) == ("missing", ("onnxruntime-gpu is not installed", "no NVIDIA GPU is visible"))
    assert install == "pip uninstall -y onnxruntime; pip install 'wanc[gpu]'"
    faults({"onnxruntime": Distribution("onnxruntime", "onnxruntime>=1.22", None, "is not installed")})
    assert states(has_gpu=True)["run-cuda"][2] == "pip install 'wanc[gpu]'"


def test_without_a_library_that_executes_graphs_its_extra_is_named_as_well(faults: Faults) -> None:
    faults({"onnxruntime": Distribution("onnxruntime", "onnxruntime>=1.22", None, "is not installed")})
    found = states()
    assert found["run"] == ("missing", ("onnxruntime is not installed",), "pip install 'wanc[cpu]'")
    assert found["build"] == ("missing", ("onnxruntime is not installed",), "pip install 'wanc[build,cpu]'")
    assert found["tensorrt-rtx"][2] == "pip install 'wanc[tensorrt-rtx,cpu]'"
    assert found["recipe"][0] == found["video"][0] == "ok"


def test_what_takes_a_gpu_says_so(faults: Faults) -> None:
    found = states()
    for name in ("tensorrt", "on-target"):
        state, lacks, install = found[name]
        assert (state, install) == ("missing", f"pip install 'wanc[{name}]'")
        assert "tensorrt-cu12 is not installed" in lacks and "no NVIDIA GPU is visible" in lacks
    assert "no NVIDIA GPU is visible" not in found["tensorrt-rtx"][1], "its engines are built without one"
    assert "no NVIDIA GPU is visible" not in states(has_gpu=True)["tensorrt"][1]


def test_a_missing_distribution_is_named_with_the_line_that_installs_it(faults: Faults) -> None:
    absent = Distribution("torch", "torch==2.13.0", None, "is not installed")
    faults({"torch": absent})
    found = states()
    assert found["build"] == ("missing", ("torch is not installed",), "pip install 'wanc[build]'")
    ok = {name for name, (state, _, _) in found.items() if state == "ok"}
    assert ok == ROAD - {"build"} | {"openvino", "tensorrt-rtx", "report", "bench", "ray"}


def test_another_engine_is_no_default_road(faults: Faults) -> None:
    faults({"openvino": Distribution("openvino", "openvino>=2026.0", None, "is not installed")})
    found = states()
    assert found["openvino"] == ("missing", ("openvino is not installed",), "pip install 'wanc[openvino]'")
    assert {name for name, (state, _, _) in found.items() if state == "ok"} == ROAD | {
        "tensorrt-rtx",
        "report",
        "bench",
        "ray",
    }


def test_a_missing_distribution_of_the_runtime_stops_building_too(faults: Faults) -> None:
    faults({"av": Distribution("av", "av>=14", None, "is not installed")})
    found = states()
    assert found["video"] == ("missing", ("av is not installed",), "pip install 'wanc[runtime]'")
    assert found["run"] == ("missing", ("av is not installed",), "pip install 'wanc[cpu]'")
    assert found["build"] == ("missing", ("av is not installed",), "pip install 'wanc[build]'")
    assert found["recipe"][0] == "ok"


def test_a_broken_import_is_installed_again(faults: Faults) -> None:
    faults(numpy="ImportError: libodd.so.1", av="the interpreter dies")
    assert states()["run"] == (
        "missing",
        ("av cannot be imported: the interpreter dies", "numpy cannot be imported: ImportError: libodd.so.1"),
        "pip install --force-reinstall --no-deps 'av>=14' 'numpy>=2.1'",
    )


# The report


MACHINE = Machine(
    system="Linux",
    architecture="x86_64",
    processor="Some Processor",
    cores=4,
    fast={"float32": ("avx2",)},
    memory_bytes=8 * 2**30,
    available_bytes=6 * 2**30,
    swap_bytes=2**30,
    gpus=(Gpu("NVIDIA L4", 24 * 2**30, "8.9", "580.1"),),
)


def problems(machine: Machine = MACHINE, **folder: Any) -> list[tuple[str, str, str]]:
    found = report.Folder(**{**FOLDER, **folder})
    return [(p.level, p.what, p.hint) for p in report._problems(machine, found, "utf-8")]  # pyright: ignore


FOLDER = {"path": "/build/out", "file_system": "ext4", "is_remote": False, "free_bytes": 2**40, "fault": None}


def test_a_sound_machine_has_no_problems() -> None:
    assert problems() == []


def test_problems_are_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(fault="/build/out cannot be written: Read-only file system") == [
        ("error", "/build/out cannot be written: Read-only file system", "choose another folder with -o")
    ]
    assert problems(file_system="nfs4", is_remote=True) == [
        (
            "warning",
            "/build/out lies on nfs4, where locks between machines depend on the server",
            "let only one machine use it at a time, or choose a local folder with -o",
        )
    ]
    assert problems(free_bytes=2**29) == [
        (
            "warning",
            "512.0 MiB are free where /build/out lies",
            "free some space, or choose a folder elsewhere with -o",
        )
    ]
    assert problems(replace(MACHINE, memory_bytes=2**30)) == [
        (
            "warning",
            "1.0 GiB of memory: tracing a model takes 2.0 GiB",
            "build on a larger machine; running a small bundle may still work",
        )
    ]
    assert problems(replace(MACHINE, hides_network=False)) == [
        (
            "warning",
            "stages have the network that you have: this system gives them none of their own",
            "allow user namespaces (sysctl user.max_user_namespaces), or build where there is no network",
        )
    ]
    assert problems(replace(MACHINE, system="Darwin")) == [
        ("warning", "wanc is built and tested on Linux, not on Darwin", "use Linux to build")
    ]
    monkeypatch.setattr(report, "clash", lambda: ("onnxruntime", "onnxruntime-gpu"))
    assert problems() == [
        (
            "error",
            "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu; then pip install 'onnxruntime' or 'onnxruntime-gpu', "
            "whichever is meant",
        )
    ]
    monkeypatch.setattr(report, "clash", lambda: None)
    monkeypatch.setattr(report.platform, "python_version", lambda: "3.10.4")
    assert problems() == [
        ("error", "Python 3.10.4 is not <3.14,>=3.11", "make a virtual environment with another Python")
    ]


def test_people_see_what_is_missing_and_the_line_that_installs_it(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "read_machine", lambda: MACHINE)
    faults({"torch": Distribution("torch", "torch==2.13.0", "2.9.0", "is 2.9.0, and ==2.13.0 is needed")})
    text = as_text(examine(tmp_path).tables())
    for line in (
        "  memory     8.0 GiB, 6.0 GiB of it free",
        "  swap       1.0 GiB",
        "  GPU        NVIDIA L4, 24.0 GiB, compute capability 8.9, driver 580.1",
        "  recipe        ok             read and check recipes",
        "  build         missing        export models and build bundles",
        "                                 torch is 2.9.0, and ==2.13.0 is needed",
        "                                 pip install 'wanc[build]'",
        "  openvino      ok             engines for CPUs with OpenVINO",
        "  tensorrt-rtx  ok             engines for RTX GPUs, built without one",
        "  this machine cannot build and run bundles on the CPU",
    ):
        assert line in text.splitlines()


def test_the_verdict_is_the_exit_code(wanc: Wanc, faults: Faults) -> None:
    finished = wanc("doctor", "--json")
    assert (finished.code, finished.err) == (0, "")
    assert json.loads(finished.out)["ok"] is True
    faults({"torch": Distribution("torch", "torch==2.13.0", None, "is not installed")})
    finished = wanc("doctor", "--json")
    described = json.loads(finished.out)
    assert (finished.code, described["ok"]) == (EXIT_UNAVAILABLE, False)
    (build,) = [entry for entry in described["abilities"] if entry["name"] == "build"]
    assert (build["state"], build["lacks"]) == ("missing", ["torch is not installed"])
    assert (build["install"], build["distributions"]["torch"]) == ("pip install 'wanc[build]'", None)
    assert wanc("doctor").code == EXIT_UNAVAILABLE


def test_a_folder_that_cannot_take_a_build_is_no_default_road(wanc: Wanc, faults: Faults) -> None:
    Path("file").write_text("")
    finished = wanc("doctor", "-o", "file/below")
    assert finished.code == EXIT_UNAVAILABLE
    assert "error  " in finished.out and "file is not a folder" in finished.out


def test_a_warning_leaves_the_road_open(wanc: Wanc, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "read_machine", lambda: replace(MACHINE, memory_bytes=2**30))
    finished = wanc("doctor", "--json")
    assert finished.code == 0
    assert [problem["level"] for problem in json.loads(finished.out)["problems"]] == ["warning"]


SCRIPT = """
import sys
from wanc.cli import main
sys.argv = ["wanc", "doctor", "--json"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"torch", "numpy", "onnx", "onnxruntime", "diffusers", "transformers", "av", "tokenizers"}
assert not heavy & {name.partition(".")[0] for name in sys.modules}, "imported into the doctor's own process"
"""


def run_doctor(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_real_look_is_quick_and_imports_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    finished = run_doctor(SCRIPT)
    seconds = time.perf_counter() - started
    assert finished.returncode == 0, finished.stderr
    described = json.loads(finished.stdout)
    assert described["ok"] is True
    assert {entry["name"] for entry in described["abilities"] if entry["default_road"]} == ROAD
    with capsys.disabled():
        print(f"\nwanc doctor: {seconds:.2f} s from start to exit")


def test_text_that_cannot_be_written_is_warned_of() -> None:
    """In a locale without UTF-8 the doctor's own words still can be."""
    plain = SCRIPT.replace(', "--json"', "")
    finished = run_doctor(plain, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert finished.returncode == 0, finished.stderr
    assert "text is ascii here: not every prompt can be written" in finished.stdout


@pytest.mark.parametrize("module", ["numpy", "yaml", "rich", "onnxruntime"])
def test_the_doctor_works_where_wanc_s_own_needs_are_broken(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError('this file is damaged')")
    finished = run_doctor(SCRIPT.replace("assert not stop.code", "assert stop.code == 69"), PYTHONPATH=str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    (run,) = [entry for entry in json.loads(finished.stdout)["abilities"] if entry["name"] == "run"]
    name = "pyyaml" if module == "yaml" else module
    assert f"{name} cannot be imported: ImportError: this file is damaged" in run["lacks"]
    assert run["install"].startswith("pip install --force-reinstall --no-deps ") and f"'{name}>=" in run["install"]
