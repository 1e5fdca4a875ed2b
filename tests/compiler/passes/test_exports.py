"""Modules of diffusers and transformers as anybody exports them, of sizes that change: fused, they run at any size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from tests.checkpoints import write_checkpoint
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.passes.registry import all_passes

from .builder import run

# Two float32 implementations: 1.5e-7 to 3.5e-7 is what these depths give.
TOLERANCE = 1e-5
WRITTEN_OUT = {"ScatterND", "Softmax", "ReduceMean", "ReduceL2", "Pow", "Erf", "Tanh", "SequenceAt", "SplitToSequence"}
FUSED = ("Attention", "RMSNormalization", "RotaryEmbedding")
ANY = torch.export.Dim.AUTO


class Plain(torch.nn.Module):
    """A module as a function of tensors that gives one."""

    def __init__(self, kind: str, module: Any) -> None:
        super().__init__()
        self.kind, self.module = kind, module

    def forward(self, first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        if self.kind == "transformer":
            return self.module(first, *others, return_dict=False)[0]
        if self.kind == "encoder":
            return self.module(first, attention_mask=others[0]).last_hidden_state
        return self.module.decode(first).sample


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), seed=7, text_heads=3, experts=1)


def opened(kind: str, root: Path) -> tuple[Plain, tuple[int, int, int]]:
    """The module, and the numbers of fused operators that it comes to."""
    if kind == "transformer":
        return Plain(kind, WanTransformer3DModel.from_pretrained(root / "transformer").eval()), (2, 4, 2)
    if kind == "encoder":
        return Plain(kind, UMT5EncoderModel.from_pretrained(root / "text_encoder").eval()), (1, 3, 0)
    vae = AutoencoderKLWan.from_pretrained(root / "vae").eval()
    norms = sum(type(module).__name__ == "WanRMS_norm" for module in vae.decoder.modules())
    return Plain(kind, vae), (1, norms, 0)


def inputs(kind: str, *size: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(sum(size))
    if kind == "transformer":
        frames, rows, columns = size
        latents = torch.randn(1, 16, frames, 2 * rows, 2 * columns, generator=generator)
        return latents, torch.tensor([100.0 * frames]), torch.randn(1, 16, 16, generator=generator)
    if kind == "encoder":
        tokens, padding = size
        mask = torch.ones(1, tokens, dtype=torch.int64)
        mask[:, tokens - padding :] = 0
        return torch.randint(0, 60, (1, tokens), generator=generator), mask
    return (0.5 * torch.randn(1, 16, 1, *size, generator=generator),)


SLOW = pytest.mark.slow
CASES = [
    pytest.param(
        "transformer", 18, ({2: ANY, 3: ANY, 4: ANY}, None, None), (3, 4, 3), [(1, 2, 5), (5, 1, 1)], marks=SLOW
    ),
    pytest.param(
        "transformer", 20, ({2: ANY, 3: ANY, 4: ANY}, None, None), (3, 4, 3), [(1, 2, 5), (5, 1, 1)], marks=SLOW
    ),
    ("encoder", 20, ({1: ANY}, {1: ANY}), (9, 2), [(4, 1), (50, 0)]),
    pytest.param("decoder", 18, ({3: ANY, 4: ANY},), (4, 5), [(3, 7), (6, 2)], marks=SLOW),
]


@pytest.mark.parametrize(("kind", "opset", "changing", "traced", "sizes"), CASES)
@torch.no_grad()
def test_an_export_of_changing_sizes(
    root: Path, kind: str, opset: int, changing: tuple[Any, ...], traced: tuple[int, ...], sizes: list[tuple[int, ...]]
) -> None:
    module, expected = opened(kind, root)
    arguments = inputs(kind, *traced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(changing[0], changing[1:]) if changing[1:] else changing,
            verbose=False,
        )
    assert program is not None
    model = program.model
    before = len(model.graph)
    apply_passes(model, [entry for entry in all_passes() if entry.by_default], where=f"{kind}/main")
    found = [node.op_type for node in model.graph]
    assert not WRITTEN_OUT & set(found)
    assert tuple(found.count(operator) for operator in FUSED) == expected
    assert len(found) <= 0.85 * before
    names = [str(value.name) for value in model.graph.inputs]
    for size in sizes:
        tensors = inputs(kind, *size)
        reference = module(*tensors).numpy()
        (actual,) = run(model, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}).values()
        assert actual.shape == reference.shape
        assert np.linalg.norm(actual - reference) <= TOLERANCE * np.linalg.norm(reference), size
