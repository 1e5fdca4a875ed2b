"""Cases as text: what is read is what was written, and everything else is an error that shows the form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.bench.case import HEAD_SIZE, Case
from wanc.errors import UserError

SIZES = st.integers(1, 64)


def test_the_reference_case_is_the_default() -> None:
    case = Case.parse("")
    assert (case.width, case.blocks, case.tokens, case.feed_forward) == (1536, 4, 2240, 8960)


@given(st.integers(1, 40), SIZES, SIZES, SIZES, SIZES, SIZES)
def test_a_case_reads_what_was_written(
    heads: int, blocks: int, frames: int, rows: int, columns: int, threads: int
) -> None:
    width = heads * HEAD_SIZE
    text = f"width={width},blocks={blocks},latent={frames}x{2 * rows}x{2 * columns},threads={threads}"
    case = Case.parse(text)
    assert case == Case(width, blocks, frames, 2 * rows, 2 * columns, threads)
    assert case.tokens == frames * rows * columns
    assert case.config()["num_attention_heads"] == heads


@pytest.mark.parametrize(
    "text", ["width=0", "width", "blocks=-1", "latent=5x32", "latent=ax2x2", "depth=3", "width=1e3", "threads=2.0"]
)
def test_what_is_not_understood_is_shown(text: str) -> None:
    with pytest.raises(UserError, match=r"is not understood at") as caught:
        Case.parse(f"blocks=1,{text}")
    assert text in caught.value.message and "latent=5x32x56" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["width=100", "latent=1x3x4", "latent=1x4x3"])
def test_sizes_that_no_model_has_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="whole heads of 128"):
        Case.parse(text)


def test_calibration_meets_other_noise_at_all_timesteps() -> None:
    case = Case.parse("width=256,blocks=1,latent=1x4x4")
    samples = case.calibration_inputs()
    assert len(samples) == 8
    timesteps = [float(sample["timestep"]) for sample in samples]
    assert timesteps == sorted(timesteps, reverse=True) and (timesteps[0], timesteps[-1]) == (1000.0, 55.0)
    for name in ("latents", "text"):
        different = {sample[name].numpy().tobytes() for sample in [case.inputs(), *samples]}
        assert len(different) == 9, name
    assert all(sample.keys() == case.inputs().keys() for sample in samples)
    assert case.calibration_inputs()[3]["text"].equal(samples[3]["text"])
