"""Which modules a keep pattern fits, and what is said of one that fits none."""

from __future__ import annotations

import pytest

from wanc.compiler.quantize.keep_patterns import check_patterns, fits, unmatched
from wanc.errors import RecipeError

HIGH, LOW = "denoiser_high", "denoiser_low"
MODULES = ["blocks.0.norm2", "blocks.0.attn1.to_q", "blocks.0.attn1.to_k", "blocks.0.ffn.net.2", "proj_out"]
PARAMETERS = ["scale_shift_table", "blocks.0.scale_shift_table", *(f"{name}.weight" for name in MODULES)]


@pytest.mark.parametrize(
    ("pattern", "name", "fit"),
    [
        ("blocks.1", "blocks.1.attn.to_q", True),
        ("blocks.1", "blocks.11.attn.to_q", False),
        ("blocks.*.attn", "blocks.3.attn.to_q", True),
        ("c/blocks.1", "blocks.1.ffn", True),
        ("d/blocks.1", "blocks.1.ffn", False),
        ("c", "blocks.1.ffn", False),
    ],
)
def test_what_a_pattern_fits(pattern: str, name: str, fit: bool) -> None:
    assert fits(pattern, "c", name) == fit


def test_patterns_that_fit_nothing() -> None:
    """Modules without a Linear count: to keep a norm is no mistake."""
    modules = {HIGH: MODULES, LOW: MODULES[-1:]}
    patterns = ["proj_out", "blocks.0.norm2", "denoiser_low/blocks.0", "proj_in", "denoiser/proj_out", "blocks.1"]
    assert unmatched(modules, patterns) == ["denoiser_low/blocks.0", "proj_in", "denoiser/proj_out", "blocks.1"]
    assert unmatched(modules, []) == []


def test_patterns_that_all_fit_something() -> None:
    check_patterns({HIGH: PARAMETERS, LOW: PARAMETERS}, ["*.norm2", "blocks.0", "denoiser_low/proj_out", "*"])
    check_patterns({HIGH: PARAMETERS}, [])


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("blocks.0.atn1.to_q", "did you mean blocks.0.attn1.to_q or blocks.0.attn1.to_k or blocks.0.attn1?"),
        ("blocks.1", "did you mean blocks.0 or blocks or blocks.0.attn1?"),
        ("denoiser_low/proj_ou", "did you mean denoiser_low/proj_out or denoiser_low/blocks or denoiser_low/blocks.0?"),
        ("denoiser/proj_out", "did you mean denoiser_low/proj_out or denoiser_high/proj_out?"),
        ("blocks.0.attn1.to_q.weight", "did you mean blocks.0.attn1.to_q or blocks.0.attn1.to_k or blocks.0.attn1?"),
        ("blocks.0.scale_shift_table", "did you mean blocks.0.attn1?"),
        ("to_q", "patterns are globs over modules, such as proj_out"),
    ],
)
def test_what_is_said_of_a_pattern_that_fits_nothing(pattern: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_patterns({HIGH: PARAMETERS, LOW: PARAMETERS}, ["proj_out", pattern])
    assert caught.value.message == f"quantize.keep.patterns: {pattern} fits no module of denoiser_high or denoiser_low"
    assert (caught.value.key, caught.value.hint) == ("quantize.keep.patterns.1", hint)
