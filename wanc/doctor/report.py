"""The doctor's report: abilities, the machine, and what else is wrong, for people and for programs."""

from __future__ import annotations

import locale
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from wanc import __version__
from wanc.doctor.abilities import FoundAbility, find
from wanc.doctor.distributions import clash, python_range
from wanc.doctor.folder import Folder, examine_folder
from wanc.doctor.machine import Gpu, Machine, read_machine
from wanc.linux import can_leave_network
from wanc.terminal import TextTable, size_text

# Tracing a model and writing a small bundle take no less.
LEAST_MEMORY_BYTES = 2 * 2**30
LEAST_DISK_BYTES = 2**30


@dataclass(frozen=True)
class MachineProblem:
    """Something about the machine besides its abilities. An error stops the default road, a warning does not."""

    level: Literal["error", "warning"]
    what: str
    hint: str


@dataclass(frozen=True)
class MachineReport:
    """What was found. `is_ok` says whether the default road works: to build, and to run on the CPU."""

    machine: Machine
    folder: Folder
    store: Folder
    encoding: str
    findings: tuple[FoundAbility, ...]
    problems: tuple[MachineProblem, ...]

    @property
    def is_ok(self) -> bool:
        road = all(finding.state == "ok" for finding in self.findings if finding.ability.is_default_road)
        return road and all(problem.level != "error" for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.is_ok,
            "wanc": __version__,
            "python": platform.python_version(),
            "encoding": self.encoding,
            "machine": asdict(self.machine),
            "output": asdict(self.folder),
            "store": asdict(self.store),
            "abilities": [_ability_json(finding) for finding in self.findings],
            "problems": [asdict(problem) for problem in self.problems],
        }

    def tables(self) -> Iterator[TextTable]:
        """What people see."""
        yield TextTable("this machine", self._machine_rows())
        yield TextTable("what wanc can do here", [row for finding in self.findings for row in _ability_rows(finding)])
        yield TextTable("problems", [row for problem in self.problems for row in _problem_rows(problem)])
        verdict = "builds bundles and runs them on the CPU" if self.is_ok else "cannot build and run bundles on the CPU"
        yield TextTable("verdict", [[f"this machine {verdict}"]])

    def _machine_rows(self) -> list[tuple[str, str]]:
        machine, folder, store = self.machine, self.folder, self.store
        fast = [f"{name} ({', '.join(features)})" for name, features in machine.fast.items()]
        memory = f"{size_text(machine.memory_bytes)}, {size_text(machine.available_bytes)} of it free"
        swap = size_text(machine.swap_bytes) if machine.swap_bytes else "none"
        return [
            ("wanc", __version__),
            ("Python", platform.python_version()),
            ("system", f"{machine.system} on {machine.architecture}"),
            ("processor", machine.processor or "unknown"),
            ("cores", str(machine.cores)),
            ("fast in", ", ".join(fast) or "nothing that is known here"),
            ("memory", memory),
            ("swap", swap),
            *[("GPU", _gpu_text(gpu)) for gpu in machine.gpus or ()],
            *([] if machine.gpus else [("GPU", "none")]),
            ("output", _folder_text(folder)),
            ("store", _folder_text(store)),
            ("text", self.encoding),
        ]


def _folder_text(folder: Folder) -> str:
    return f"{folder.path} on {folder.file_system or 'an unknown file system'}, {size_text(folder.free_bytes)} free"


def examine(output: Path, store: Path | None = None) -> MachineReport:
    """Look at this machine, for builds that write to the folder `output`, and to a store: the one in it unless given.

    Raises UserError where wanc itself is not installed.
    """
    machine = replace(read_machine(), hides_network=can_leave_network())
    folder, kept = examine_folder(output), examine_folder(store or output / "store")
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    findings = find(has_gpu=bool(machine.gpus))
    problems = [*_problems(machine, folder, encoding), *(_folder_problems(kept, "--store") if store else ())]
    return MachineReport(machine, folder, kept, encoding, findings, tuple(problems))


def _problems(machine: Machine, folder: Folder, encoding: str) -> Iterator[MachineProblem]:
    version = platform.python_version()
    if not python_range().contains(version, prereleases=True):
        wanted = str(python_range())
        yield MachineProblem(
            "error", f"Python {version} is not {wanted}", "make a virtual environment with another Python"
        )
    if pair := clash():
        one, other = pair
        yield MachineProblem(
            "error",
            f"{one} and {other} are both installed, and overwrite each other's files",
            f"pip uninstall -y {one} {other}; then pip install '{one}' or '{other}', whichever is meant",
        )
    yield from _folder_problems(folder, "-o")
    if machine.memory_bytes < LEAST_MEMORY_BYTES:
        what = f"{size_text(machine.memory_bytes)} of memory: tracing a model takes {size_text(LEAST_MEMORY_BYTES)}"
        yield MachineProblem("warning", what, "build on a larger machine; running a small bundle may still work")
    if machine.system != "Linux":
        yield MachineProblem(
            "warning", f"wanc is built and tested on Linux, not on {machine.system}", "use Linux to build"
        )
    if not machine.hides_network:
        yield MachineProblem(
            "warning",
            "stages have the network that you have: this system gives them none of their own",
            "allow user namespaces (sysctl user.max_user_namespaces), or build where there is no network",
        )
    if encoding.lower().replace("-", "") != "utf8":
        yield MachineProblem("warning", f"text is {encoding} here: not every prompt can be written", "set PYTHONUTF8=1")


def _folder_problems(folder: Folder, option: str) -> Iterator[MachineProblem]:
    if folder.fault:
        yield MachineProblem("error", folder.fault, f"choose another folder with {option}")
    if folder.is_remote:
        what = f"{folder.path} lies on {folder.file_system}, where locks between machines depend on the server"
        hint = f"let only one machine use it at a time, or choose a local folder with {option}"
        yield MachineProblem("warning", what, hint)
    if folder.free_bytes < LEAST_DISK_BYTES:
        what = f"{size_text(folder.free_bytes)} are free where {folder.path} lies"
        yield MachineProblem("warning", what, f"free some space, or choose a folder elsewhere with {option}")


def _ability_json(finding: FoundAbility) -> dict[str, Any]:
    return {
        "name": finding.ability.name,
        "about": finding.ability.about,
        "state": finding.state,
        "default_road": finding.ability.is_default_road,
        "lacks": list(finding.lacks),
        "install": finding.install,
        "distributions": {found.name: found.version for found in finding.distributions},
    }


def _ability_rows(finding: FoundAbility) -> Iterator[tuple[str, str, str]]:
    yield finding.ability.name, finding.state, finding.ability.about
    if finding.state == "missing":
        lines = [*finding.lacks, *([finding.install] if finding.install else [])]
        yield from (("", "", f"  {line}") for line in lines)


def _problem_rows(problem: MachineProblem) -> list[tuple[str, str]]:
    return [(problem.level, problem.what), ("", problem.hint)]


def _gpu_text(gpu: Gpu) -> str:
    facts = [
        gpu.name,
        size_text(gpu.memory_bytes) if gpu.memory_bytes else "",
        f"compute capability {gpu.compute_capability}" if gpu.compute_capability else "",
        f"driver {gpu.driver}" if gpu.driver else "",
    ]
    return ", ".join(filter(None, facts))
