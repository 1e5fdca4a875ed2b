"""What a request may hold: values of the right types, and texts that are not too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wanc.runtime.errors import UserError
from wanc.runtime.noise import initial_noise
from wanc.runtime.prompts import MOST_PROMPT_BYTES, read_prompts
from wanc.runtime.request import Request


@pytest.mark.parametrize("name", ["seed", "steps", "frames"])
@pytest.mark.parametrize("value", [True, False])
def test_truth_is_no_number(name: str, value: bool) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(UserError) as caught:
        Request("a", **options)
    assert caught.value.message == f"{name} is {value}, not a whole number"


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UserError) as caught:
        initial_noise((1,), Request("a", seed=seed).seed)
    assert caught.value.message == f"the seed is {seed}"
    assert caught.value.hint == f"give a whole number from 0 to {2**63 - 1}"


@pytest.mark.parametrize("text", ["a", "红", "🐈", "\udcff"])
def test_the_length_of_a_prompt_is_limited(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    fitting = text * (MOST_PROMPT_BYTES // size)
    long = fitting + text
    assert Request(fitting, negative_prompt=fitting).prompt == fitting
    with pytest.raises(UserError, match=r"^prompt has 655\d\d bytes, more than the 65536 allowed"):
        Request(long)
    with pytest.raises(UserError, match=r"^negative_prompt has 655\d\d bytes, more than the 65536 allowed"):
        Request("a", negative_prompt=long)


def test_a_line_that_is_too_long_is_told_before_any_video_is_made(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n" + "#" * 70_000 + "\n" + "a" * 70_000 + "\n")
    with pytest.raises(UserError) as caught:
        read_prompts(path)
    assert str(caught.value) == f"{path}:3:1: the line has 70000 bytes, more than the 65536 allowed"
