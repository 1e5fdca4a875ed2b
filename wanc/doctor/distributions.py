"""Installed Python distributions against what wanc's own metadata asks for. Nothing is imported into this process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.same_module import INSTEAD

PROJECT = "wanc"
# What is tried besides the import, because a wheel may come without it.
TRIALS = {
    "av": "from av.codec import Codec; Codec('libx264', 'w')",
    "onnxruntime": "from onnxruntime import InferenceSession",
}
_TRIAL_SECONDS = 60
# A module that kills the interpreter is the one after the last that was reported.
_TRY_IMPORTS = """
import json, os, sys
report = os.fdopen(os.dup(1), "w")
sys.modules["openvino_telemetry"] = None  # it looks up a host
os.dup2(2, 1)  # what a module prints is not for us
for name, statement in json.loads(sys.argv[1]).items():
    try:
        __import__(name)
        exec(statement)
        fault = None
    except BaseException as error:
        fault = f"{type(error).__name__}: {error}"
    print(json.dumps([name, fault]), file=report, flush=True)
"""


@dataclass(frozen=True)
class Distribution:
    """A distribution that wanc asks for, as `requirement`; `version` is the installed one.

    `fault` is why that does not serve, if it does not. `is_damaged` tells the right version with broken files, which
    pip takes for installed, from an absent or a wrong one.
    """

    name: str
    requirement: str
    version: str | None
    fault: str | None = None
    is_damaged: bool = False


def python_range() -> SpecifierSet:
    """The Python versions that wanc takes. Raises UserError where wanc is not installed."""
    return SpecifierSet(_project().metadata["Requires-Python"] or "")


def requirements(extra: str) -> dict[str, Requirement]:
    """What an extra of wanc asks for on this machine, by normal name; "" is wanc without any extra.

    Raises UserError where wanc is not installed.
    """
    found: dict[str, Requirement] = {}
    for text in _project().requires or []:
        requirement = Requirement(text)
        if not _applies(requirement, extra):
            continue
        if canonicalize_name(requirement.name) == PROJECT:
            for other in sorted(requirement.extras):
                found |= requirements(other)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def look_up(name: str, requirement: Requirement) -> Distribution:
    """The state of a distribution as far as versions and files tell; `import_faults` finds what they do not."""
    version = _version(name) or _version(INSTEAD.get(name, name))
    found = Distribution(name, f"{requirement.name}{requirement.specifier}", version)
    if version is None:
        return replace(found, fault="is not installed")
    if not requirement.specifier.contains(version, prereleases=True):
        return replace(found, fault=f"is {version}, and {requirement.specifier} is needed")
    if importlib.util.find_spec(_module(name)) is None:
        return replace(found, fault="is installed without its module", is_damaged=True)
    return found


def import_faults(names: Iterable[str]) -> dict[str, str]:
    """The distributions of these that cannot be imported, with the reason. One other process tries them all."""
    modules = {_module(name): name for name in names}
    asked = json.dumps({module: TRIALS.get(module, "") for module in modules})
    ended = "the interpreter dies"
    try:
        output = subprocess.run(
            [sys.executable, "-P", "-c", _TRY_IMPORTS, asked],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TRIAL_SECONDS, check=False,
        ).stdout  # fmt: skip
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"not done after {_TRIAL_SECONDS} s"
    outcomes: dict[str, str | None] = dict(map(json.loads, output.splitlines()))
    silent = [module for module in modules if module not in outcomes]
    faults = {modules[module]: fault for module, fault in outcomes.items() if fault}
    return faults | {modules[module]: ended for module in silent[:1]}


def clash() -> tuple[str, str] | None:
    """Two installed distributions whose files overwrite each other, if there are such."""
    for name, other in INSTEAD.items():
        if _version(name) and _version(other):
            return name, other
    return None


def _project() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(PROJECT)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "wanc is not installed: only its files are there",
            hint="pip install -e . where its pyproject.toml is",
            exit_code=EXIT_UNAVAILABLE,
        ) from error


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    of_the_extra = requirement.marker.evaluate({"extra": extra})
    return of_the_extra and (not extra or not requirement.marker.evaluate({"extra": ""}))


def _module(name: str) -> str:
    """The module that a distribution's files say it holds, which need not be of its name; what is absent is told by it.

    Of several it is the one of that name, or the first that is not marked as private.
    """
    for installed in (name, INSTEAD.get(name, name)):
        try:
            found = importlib.metadata.distribution(installed)
        except importlib.metadata.PackageNotFoundError:
            continue
        own = installed.replace("-", "_")
        packages = [path.parts[0] for path in found.files or () if path.match("*/__init__.py") and len(path.parts) == 2]
        held = (found.read_text("top_level.txt") or "").split() or packages
        return own if own in held else next((module for module in held if not module.startswith("_")), own)
    return name.replace("-", "_")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
