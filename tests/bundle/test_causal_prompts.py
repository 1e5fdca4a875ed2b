"""What the causal model that comes with wanc shows: what its prompt says, also in a long video and behind a change.

A sample of what `python -m scripts.evaluate_tiny_wan` measures, whose figures are in the model's card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts import evaluate_tiny_wan
from scripts.tiny_wan import evaluation
from tests.conftest import ROOT
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Result

pytestmark = pytest.mark.slow
PAIRS = 8


@pytest.fixture(scope="module")
def drawing(together: Path) -> Path:
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-causal.yaml")
    return build(loaded, together / "tiny", progress=False).bundle


def test_a_long_video_shows_what_its_prompt_says(drawing: Path) -> None:
    generate = evaluate_tiny_wan.bundle_generator(drawing, None, frames=65)
    chosen = [case for case, _ in evaluation.changed_cases(PAIRS)]
    rows = {"all": evaluation.agreement([*evaluation.answer(generate, chosen, goes_round=True)])}
    assert evaluate_tiny_wan.misses(rows, evaluate_tiny_wan.LOWEST_AGREEMENT_OF_LONG_CLIPS) == []


def missed(drawing: Path, memory: str, pairs: int) -> list[str]:
    rows = evaluate_tiny_wan.measure_changed(evaluate_tiny_wan.changed_generator(drawing, None, memory), pairs)
    return evaluate_tiny_wan.misses(rows, evaluate_tiny_wan.LOWEST_AGREEMENT_OF_CHANGED_CLIPS)


@pytest.mark.parametrize("memory", ["keep", pytest.param("renew", marks=pytest.mark.long)])
def test_both_prompts_are_seen(drawing: Path, memory: str) -> None:
    assert missed(drawing, memory, PAIRS) == []


def test_a_prompt_that_is_not_followed_is_found(drawing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate: Any = Pipeline.generate

    def deaf(self: Pipeline, prompt: str, **options: Any) -> Result:
        return generate(self, prompt, **{**options, "changes": None})

    monkeypatch.setattr(Pipeline, "generate", deaf)
    found = missed(drawing, "keep", 3)
    assert {sentence.split()[0] for sentence in found} == {"shape", "colour", "direction"}
    assert any("with the prompt from before" in sentence for sentence in found)
