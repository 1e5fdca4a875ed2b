"""What wanc can do, and what each of it takes: a table, and one look at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from wanc.doctor.distributions import PROJECT, Distribution, import_faults, look_up, requirements
from wanc.runtime.same_module import INSTEAD

State = Literal["ok", "missing", "not built yet"]
KeyPath = tuple[str | int, ...]
CPU = "cpu"
"""The extra with the library that executes graphs wherever one is executed; the other one, for GPUs, serves as well."""


@dataclass(frozen=True)
class Ability:
    """Something that wanc does, given the distributions of `extra` ("" is wanc itself), or only some of them.

    `asked` is the recipe key, and the value if there is one, that asks for it: the recipe room knows which of those
    are planned and not built yet. `later` is for what no recipe asks for and wanc does not do yet. The default road
    is what `wanc doctor` answers for with its exit code.
    """

    name: str
    about: str
    extra: str = ""
    only: tuple[str, ...] = ()
    needs_gpu: bool = False
    asked: tuple[KeyPath, str | None] | None = None
    later: bool = False
    is_default_road: bool = False


ENGINE: KeyPath = ("engine", "kind")
ABILITIES = (
    Ability("recipe", "read and check recipes", only=("pydantic", "pyyaml"), is_default_road=True),
    Ability("build", "export models and build bundles", extra="build", is_default_road=True),
    Ability("run", "run bundles with ONNX Runtime on the CPU", extra=CPU, is_default_road=True),
    Ability("video", "write .mp4 files", extra="runtime", only=("av",), is_default_road=True),
    Ability(
        "run-cuda",
        "run bundles with ONNX Runtime on an NVIDIA GPU",
        extra="gpu",
        needs_gpu=True,
        asked=(("engine", "targets", 0), "cuda"),
    ),
    Ability("openvino", "engines for CPUs with OpenVINO", extra="openvino", asked=(ENGINE, "openvino")),
    Ability(
        "tensorrt-rtx", "engines for RTX GPUs, built without one", extra="tensorrt-rtx", asked=(ENGINE, "tensorrt-rtx")
    ),
    Ability("tensorrt", "engines for data-centre GPUs", extra="tensorrt", needs_gpu=True, asked=(ENGINE, "tensorrt")),
    Ability("on-target", "build such engines where their GPU is", extra="on-target", needs_gpu=True),
    Ability("report", "evaluate bundles and draw reports", extra="report", asked=(("evaluate",), None)),
    Ability("bench", "measure beside NNCF's integers", extra="bench"),
    Ability("serve", "serve bundles over HTTP", extra="serve", later=True),
    Ability("ray", "spread builds over machines", extra="ray"),
)


@dataclass(frozen=True)
class FoundAbility:
    """An ability on this machine: its state, what it lacks in words, and the command that installs what can be."""

    ability: Ability
    state: State
    distributions: tuple[Distribution, ...]
    lacks: tuple[str, ...]
    install: str | None


def find(*, has_gpu: bool) -> tuple[FoundAbility, ...]:
    """Every ability's state. What wanc itself and its runtime need is imported as a trial, in another process."""
    own = _look_up("") | _look_up(CPU)
    faults = import_faults([name for name, found in own.items() if not found.fault])
    for name, fault in faults.items():
        own[name] = replace(own[name], fault=f"cannot be imported: {fault}", is_damaged=True)
    return tuple(_finding(ability, own, has_gpu) for ability in ABILITIES)


def is_built(ability: Ability) -> bool:
    """Whether wanc can do it at all, on a machine that has everything."""
    if ability.later or ability.asked is None:
        return not ability.later
    try:
        from wanc.recipe import planned
    except Exception:  # a damaged library fails in its own way; without it, nothing can be asked for
        return False
    path, value = ability.asked
    return not (planned.is_planned_key(path) if value is None else planned.is_planned_value(path, value))


def _look_up(extra: str) -> dict[str, Distribution]:
    return {name: look_up(name, requirement) for name, requirement in requirements(extra).items()}


def _finding(ability: Ability, own: Mapping[str, Distribution], has_gpu: bool) -> FoundAbility:
    # What an extra adds is of no use without wanc's own dependencies.
    needed = {name: own[name] for name in ability.only} if ability.only else {**_look_up(ability.extra), **own}
    lacks = [f"{name} {found.fault}" for name, found in needed.items() if found.fault]
    if ability.needs_gpu and not has_gpu:
        lacks.append("no NVIDIA GPU is visible")
    state: State = "not built yet" if not is_built(ability) else "missing" if lacks else "ok"
    install = _install(ability, needed.values()) if state == "missing" else None
    return FoundAbility(ability, state, tuple(needed.values()), tuple(lacks), install)


def _install(ability: Ability, needed: Iterable[Distribution]) -> str | None:
    faulty = [found for found in needed if found.fault]
    if damaged := [f"'{found.requirement}'" for found in faulty if found.is_damaged]:
        return f"pip install --force-reinstall --no-deps {' '.join(damaged)}"
    if not faulty:
        return None
    absent = {found.name for found in faulty}
    wants_other = bool(absent & set(INSTEAD.values()))
    extras = [ability.extra] if ability.extra else []
    if absent & INSTEAD.keys() and not wants_other and CPU not in extras:
        extras.append(CPU)
    install = f"pip install '{PROJECT}[{','.join(extras)}]'" if extras else f"pip install '{PROJECT}'"
    in_the_way = [name for name in INSTEAD if name not in absent] if wants_other else []
    return f"pip uninstall -y {' '.join(in_the_way)}; {install}" if in_the_way else install
