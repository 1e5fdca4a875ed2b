from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import NotBuiltYetError, RecipeError
from wanc.recipe import planned
from wanc.recipe.fields import all_paths
from wanc.recipe.load import load
from wanc.words import TARGETS

Write = Callable[[str, str | bytes], Path]


@pytest.mark.parametrize("path", planned.KEYS)
def test_planned_keys_are_not_built_yet(path: str, write: Write, tiny: str) -> None:
    dotted = path.replace("*", "0")
    device = ["partition.devices=[{kind: cpu}]"] if "*" in path else []
    owner, _, _ = dotted.rpartition(".")
    takes = f"{owner} takes" if owner else "a recipe has"
    with pytest.raises(NotBuiltYetError) as caught:
        load(write("recipe.yaml", tiny), [*device, f"{dotted}={{any: 1}}"])
    known = {key for *places, key in all_paths() if ".".join(map(str, places)) == owner.replace(".0", "")}
    said, _, listed = caught.value.message.partition(": ")
    assert said == f"{dotted} is not built yet; today {takes}"
    assert set(listed.split(", ")) == known
    assert caught.value.where == f"--set {dotted}={{any: 1}}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.targets=[cpu, tpu]", "engine.targets.1: tpu is not built yet; today wanc builds: %s"),
    ],
)
def test_planned_values_are_not_built_yet(
    override: str, message: str, write: Write, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none today."""
    monkeypatch.setattr(planned, "VALUES", {"engine.targets.*": ("tpu",)})
    with pytest.raises(NotBuiltYetError) as caught:
        load(write("recipe.yaml", tiny), [override])
    assert caught.value.message == message % ", ".join(TARGETS)
    assert caught.value.where == f"--set {override}"


def test_every_planned_value_is_refused_today(write: Write, tiny: str) -> None:
    path = write("recipe.yaml", tiny)
    for pattern, globs in planned.VALUES.items():
        for value in globs:
            if set(value) & set("*?["):
                continue
            leaf = f"[{value}]" if pattern.endswith(".*") else value
            leaf = f"[{{kind: {value}}}]" if pattern.endswith("*.kind") else leaf
            with pytest.raises(NotBuiltYetError):
                load(path, [f"{pattern.split('.*')[0]}={leaf}"])


def test_planned_keys_are_no_keys_of_the_schema() -> None:
    have = {".".join(map(str, path)) for path in all_paths()}
    assert not have & {key.replace(".*", "") for key in planned.KEYS}


def test_a_whole_planned_recipe_is_not_built_yet(write: Write, tiny: str) -> None:
    future = """
fuse: {passes: default, hoist: [time, request]}
runtime: {offload: {experts: swap}, budgets: {device: 70GiB}}
"""
    with pytest.raises(NotBuiltYetError, match=r": runtime.offload is not built yet"):
        load(write("recipe.yaml", tiny + future))


def test_one_real_fault_makes_it_a_recipe_error(write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny + "runtime: {offload: {experts: swap}, threads: -1}\n"))
    assert type(caught.value) is RecipeError
