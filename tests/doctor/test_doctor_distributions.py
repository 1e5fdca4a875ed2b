"""Distributions against what wanc asks for: absent, too old, damaged, deadly, and two in one place."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wanc.doctor import distributions
from wanc.doctor.distributions import clash, import_faults, look_up, python_range, requirements
from wanc.errors import EXIT_UNAVAILABLE, UserError

from ..conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def install(site: Path, name: str, version: str, module: str | None = "") -> None:
    """A distribution in a folder, with its module unless that is None."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if module is not None:
        (site / f"{name.replace('-', '_')}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of distributions that goes before all others, in this process and in those that it starts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("extra", sorted({*EXTRAS} - {"dev", "on-target", "third-party"}))
def test_requirements_are_the_project_s_own(extra: str) -> None:
    wanted = {canonicalize_name(Requirement(text).name) for text in EXTRAS[extra]}
    assert requirements(extra).keys() == wanted
    for name, requirement in requirements(extra).items():
        (text,) = [text for text in EXTRAS[extra] if canonicalize_name(Requirement(text).name) == name]
        assert requirement.specifier == Requirement(text).specifier


@pytest.mark.parametrize("text", sorted({text for extra in EXTRAS.values() for text in extra}))
def test_what_is_installed_has_its_module_of_whatever_name(text: str) -> None:
    """Modules that are not named as their distributions are the rule rather than the exception."""
    requirement = Requirement(text)
    found = look_up(canonicalize_name(requirement.name), requirement)
    assert not found.is_damaged, found.fault


def test_wanc_itself_asks_for_its_runtime_too() -> None:
    own = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *EXTRAS["runtime"]]}
    assert requirements("").keys() == own - {"wanc"}


def test_the_range_of_pythons_is_the_project_s() -> None:
    assert str(python_range()) == str(Requirement(f"python{PROJECT['requires-python']}").specifier)


def test_a_sound_distribution_has_no_fault(site: Path) -> None:
    install(site, "wanc-test-sound", "1.5")
    found = look_up("wanc-test-sound", Requirement("wanc-test-sound>=1.2"))
    assert (found.version, found.fault, found.is_damaged) == ("1.5", None, False)
    assert found.requirement == "wanc-test-sound>=1.2"


def test_an_absent_distribution(site: Path) -> None:
    found = look_up("wanc-test-absent", Requirement("wanc-test-absent>=1.2"))
    assert (found.version, found.fault, found.is_damaged) == (None, "is not installed", False)


def test_an_old_distribution(site: Path) -> None:
    install(site, "wanc-test-old", "1.1")
    found = look_up("wanc-test-old", Requirement("wanc-test-old>=1.2"))
    assert (found.version, found.fault, found.is_damaged) == ("1.1", "is 1.1, and >=1.2 is needed", False)


@pytest.mark.parametrize("version", ["2.13.0+cpu", "2.13.0"])
def test_a_build_of_the_right_version_is_the_right_version(site: Path, version: str) -> None:
    install(site, "wanc-test-local", version)
    assert look_up("wanc-test-local", Requirement("wanc-test-local==2.13.0")).fault is None


def test_a_distribution_without_its_module_is_damaged(site: Path) -> None:
    install(site, "wanc-test-hollow", "1.5", module=None)
    found = look_up("wanc-test-hollow", Requirement("wanc-test-hollow"))
    assert (found.fault, found.is_damaged) == ("is installed without its module", True)


def test_imports_are_tried_in_another_process(site: Path) -> None:
    install(site, "wanc-test-sound", "1", "import math")
    install(site, "wanc-test-broken", "1", "raise ImportError('libodd.so.1: cannot open')")
    install(site, "wanc-test-exits", "1", "import sys; sys.exit(3)")
    names = ["wanc-test-sound", "wanc-test-broken", "wanc-test-exits"]
    assert import_faults(names) == {
        "wanc-test-broken": "ImportError: libodd.so.1: cannot open",
        "wanc-test-exits": "SystemExit: 3",
    }
    assert sys.modules.keys().isdisjoint(name.replace("-", "_") for name in names)


def test_an_import_that_kills_the_interpreter_is_named(site: Path) -> None:
    install(site, "wanc-test-sound", "1", "print('[not our line')")
    install(site, "wanc-test-deadly", "1", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    install(site, "wanc-test-later", "1")
    names = ["wanc-test-sound", "wanc-test-deadly", "wanc-test-later"]
    assert import_faults(names) == {"wanc-test-deadly": "the interpreter dies"}


def test_an_import_without_end_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_TRIAL_SECONDS", 1)
    install(site, "wanc-test-slow", "1", "import threading; threading.Event().wait()")
    assert import_faults(["wanc-test-slow"]) == {"wanc-test-slow": "not done after 1 s"}


def test_a_wheel_without_the_encoder_is_of_no_use(site: Path) -> None:
    """PyAV imports without libx264 as well; writing a video is what it is for."""
    (site / "av").mkdir()
    (site / "av/__init__.py").write_text("")
    (site / "av/codec.py").write_text("def Codec(name, mode): raise ValueError(f'no {name}')")
    assert import_faults(["av"]) == {"av": "ValueError: no libx264"}


def test_modules_of_the_current_folder_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert import_faults(["numpy"]) == {}


def test_two_distributions_of_one_module_clash(site: Path) -> None:
    assert clash() is None
    install(site, "onnxruntime-gpu", "1.30.0")
    assert clash() == ("onnxruntime", "onnxruntime-gpu")


def test_the_gpu_distribution_serves_in_place_of_the_other(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "wanc-test-gpu", "1.3")
    monkeypatch.setattr(distributions, "INSTEAD", {"wanc-test-cpu": "wanc-test-gpu"})
    found = look_up("wanc-test-cpu", Requirement("wanc-test-cpu>=1.2"))
    assert (found.version, found.fault) == ("1.3", None)


def test_files_without_an_installation_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError) as caught:
        requirements("build")
    assert (caught.value.exit_code, str(caught.value), caught.value.hint) == (
        EXIT_UNAVAILABLE,
        "wanc is not installed: only its files are there",
        "pip install -e . where its pyproject.toml is",
    )
