"""The reference of tiny-wan, made once for all tests of reports."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from wanc.artifacts.store import Store
from wanc.compiler.make_reference import make_reference
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.report.reference import ReferenceRecord
from wanc.report.unfinished import Unfinished

from ..bundle.conftest import WITHIN, causal_bundle, causal_recipe

__all__ = ["causal_bundle", "causal_recipe"]

PROMPTS = ("A red circle moves left.", "A blue square moves down.", "一个绿色的三角形向右移动。")
CLIPS = 2


@pytest.fixture(scope="session")
def evaluated(tiny_recipe: Path, together: Path) -> Path:
    """tiny-wan's recipe with something to report on."""
    path = together / "evaluated.yaml"
    (together / "evaluate.txt").write_text("\n".join(PROMPTS) + "\n", "utf-8")
    # One line, so that a process that reads it while another writes finds it whole.
    path.write_text(
        f"extends: {tiny_recipe}\nevaluate: {{prompts: evaluate.txt, clips: {CLIPS}, pairs: 20}}\n", "utf-8"
    )
    return path


@pytest.fixture(scope="session")
def record(evaluated: Path, tiny_bundle: Path) -> ReferenceRecord:
    """Two clips of the untouched model, and of each a change in the last place of either format."""
    (loaded,) = load(evaluated)
    return ReferenceRecord.read(*make_reference(loaded, tiny_bundle.parents[1] / "store", progress=False))


@pytest.fixture
def measured(together: Path) -> Generator[Unfinished]:
    """What reports of this run have measured: a bundle that many are held against is measured once.

    For bundles that execute as they are; where a test changes what they do, it measures them itself.
    """
    with Unfinished.opened(Store.open(together / "measured"), "tests") as unfinished:
        yield unfinished


@pytest.fixture(scope="session")
def budgeted(tiny_recipe: Path, tiny_bundle: Path) -> Path:
    """tiny-wan cut at every block, within a budget of memory in which all of it finds room."""
    (loaded,) = load(tiny_recipe, ["name=within", *WITHIN])
    return build(loaded, tiny_bundle.parents[1], progress=False).bundle
