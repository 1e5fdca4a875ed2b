"""How a prompt reaches the denoiser: padded with zeros after it was encoded, and attended to as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wanc.runtime.embeddings import EmbeddingTable
from wanc.runtime.encode import encode_prompt
from wanc.runtime.errors import TargetError
from wanc.runtime.parts import Parts
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.text import Tokenizer
from wanc.runtime.text_bundle import EMBEDDING_TENSOR, TOKENIZER

PROMPT = "A red circle moves to the left."


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.open(tiny_bundle)


def velocity(pipeline: Pipeline, text: np.ndarray, component: str) -> np.ndarray:
    latents = np.random.default_rng(0).standard_normal((1, 16, 1, 8, 8), dtype=np.float32)
    inputs = {"latents": latents, "timestep": np.array([900.0], np.float32), "text": text}
    parts = Parts(component, pipeline.bundle.interfaces(component), pipeline.executor)
    return parts.run("step", inputs, branch="conditional")["velocity"].numpy()


@pytest.fixture(scope="module")
def tokenizer(pipeline: Pipeline) -> Tokenizer:
    length = pipeline.bundle.model.text_length
    return pipeline.bundle.folder.read(TOKENIZER, lambda path: Tokenizer.open(path.parent, length))


@pytest.fixture(scope="module")
def states(pipeline: Pipeline, tokenizer: Tokenizer) -> np.ndarray:
    bundle = pipeline.bundle
    table = bundle.folder.read(bundle.embedding, lambda path: EmbeddingTable.open(path, EMBEDDING_TENSOR))
    return encode_prompt(PROMPT, tokenizer, table, pipeline.executor)


def test_states_are_padded_with_zeros_after_encoding(tokenizer: Tokenizer, states: np.ndarray) -> None:
    count = len(tokenizer.encode(PROMPT))
    assert 0 < count < tokenizer.text_length == states.shape[1]
    assert not states[:, count:].any()
    assert np.abs(states[:, :count]).max(axis=-1).min() > 0, "every token of the prompt has a state"


@pytest.mark.parametrize("component", ["denoiser_high", "denoiser_low"])
def test_the_padding_is_attended_to(
    pipeline: Pipeline, tokenizer: Tokenizer, states: np.ndarray, component: str
) -> None:
    """Zeros have keys and values too, which biases make: a mask, or a shorter text, would be another model."""
    count = len(tokenizer.encode(PROMPT))
    other = states.copy()
    other[:, -1] = states[:, 0]
    whole = velocity(pipeline, states, component)
    assert np.abs(velocity(pipeline, other, component) - whole).max() > 1e-4 * np.abs(whole).max()
    with pytest.raises(TargetError, match="cannot execute this graph on these inputs"):
        velocity(pipeline, np.ascontiguousarray(states[:, :count]), component)
