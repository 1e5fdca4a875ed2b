"""The surveys that ship are those of the graphs that are compiled today."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.survey_models import SURVEYED, TINY, surveys
from wanc.compiler.planner.survey import SHIPPED, Survey
from wanc.models.wan.checkpoint import open_checkpoint

from .counted import sparse

AGAIN = "write them again: python -m scripts.survey_models"


def assert_shipped(model: str, root: Path, seen: set[str]) -> None:
    for file, found in surveys(model, open_checkpoint(root), seen):
        (stored,) = SHIPPED.glob(f"*.{file.split('.')[-2]}.json")
        assert Survey.read(stored) == found, f"{file}: {AGAIN}"


def test_every_file_there_is_a_survey_and_reads_as_it_was_written(tmp_path: Path) -> None:
    files = sorted(SHIPPED.glob("*.json"))
    assert len(files) >= 7
    for file in files:
        Survey.read(file).write(tmp_path / file.name)
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_tiny_wans_surveys_are_those_of_its_graphs() -> None:
    assert_shipped("tiny-wan", TINY, set())


@pytest.mark.slow
def test_large_models_surveys_are_those_of_their_graphs(tmp_path: Path) -> None:
    """What several models have in common is traced once."""
    seen: set[str] = set()
    for model in SURVEYED:
        before = len(seen)
        assert_shipped(model, sparse(model, tmp_path), seen)
        assert len(seen) > before, f"{model} has a denoiser of its own"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_blocks_that_were_not_surveyed_are_not_made_up(count: int) -> None:
    (file,) = SHIPPED.glob("tiny-wan.denoiser.*.json")
    survey = Survey.read(file)
    if count >= len(survey.parts):
        assert [part.name for part in survey.blocks(count)] == [f"blocks.{index}" for index in range(count)]
    else:
        with pytest.raises(ValueError, match="is none of"):
            survey.blocks(count)


def test_linears_of_a_block_have_its_name() -> None:
    (file,) = SHIPPED.glob("wan2.2-t2v-a14b.denoiser.*.json")
    parts = Survey.read(file).blocks(40)
    names = {kernel.linear.split(".")[1] for kernel in parts[17].main.kernels if kernel.linear}
    assert names == {"17"}
    assert any(kernel.linear == "proj_out" for kernel in parts[39].main.kernels)
