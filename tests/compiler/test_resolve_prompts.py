"""The prompts that a recipe is calibrated on are pinned by what they say, and not by where or how they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.faults.bad_input import QUANTISED
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.bundle.lock import lock_of
from wanc.compiler.resolve import Resolved, resolve
from wanc.recipe.load import load

PROMPTS = "A red circle moves up.\n一个红色的圆形向上移动。\n"
NAME = "quantize.calibrate.prompts"

Resolve = Callable[..., Resolved]


@pytest.fixture
def resolved(tmp_path: Path) -> Resolve:
    """The resolved recipe with `text` as its prompts, in a file of the given name."""
    write_checkpoint(tmp_path / "model", seed=1, shards=2)
    (tmp_path / "recipe.yaml").write_text(QUANTISED)
    digests = SourceDigests(Store.open(tmp_path / "artifacts/store"))

    def run(text: str = PROMPTS, *overrides: str, name: str = "prompts.txt") -> Resolved:
        (tmp_path / name).write_text(text, encoding="utf-8")
        renamed = [] if name == "prompts.txt" else [f"{NAME}={tmp_path / name}"]
        (loaded,) = load(tmp_path / "recipe.yaml", [*renamed, *overrides])
        return resolve(loaded, digests, progress=False)

    return run


def test_prompts_are_read_in_order(resolved: Resolve) -> None:
    assert resolved(f"# two\n{PROMPTS}\n").prompts == ("A red circle moves up.", "一个红色的圆形向上移动。")


def test_nothing_quantised_needs_no_prompts(resolved: Resolve) -> None:
    found = resolved(PROMPTS, "quantize=null")
    assert (found.prompts, found.prompts_blob) == ((), None)
    assert found.described["quantize"] == {"scheme": "none"}
    assert NAME not in lock_of(found, [])["inputs"]


def test_what_the_prompts_say_is_what_identifies_them(resolved: Resolve) -> None:
    one = resolved()
    assert resolved(f"# a comment\n\n  {PROMPTS}").recipe_digest == one.recipe_digest
    assert resolved(name="others.txt").recipe_digest == one.recipe_digest
    swapped = "".join(reversed(PROMPTS.splitlines(keepends=True)))
    others = [resolved(text) for text in (PROMPTS.lower(), swapped, PROMPTS + PROMPTS, PROMPTS.splitlines()[0])]
    assert len({one.recipe_digest, *(other.recipe_digest for other in others)}) == 5


def test_the_lock_pins_them_and_names_no_place(resolved: Resolve, tmp_path: Path) -> None:
    lock = lock_of(resolved(), [])
    pinned = lock["inputs"][NAME]
    assert lock["recipe"]["quantize"]["calibrate"]["prompts"] == pinned["sha256"]
    assert pinned["size"] == len(PROMPTS.strip().encode())
    assert str(tmp_path) not in json.dumps(lock)
