"""The causal denoiser as engines have it: what PyTorch computes chunk by chunk, what is known of a chunk cut off."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.test_causal import (
    CLEAN,
    CONFIG,
    NOISY,
    TEXT,
    TOKENS,
    Caches,
    names,
    noise,
    text,
    turned_in_time,
)
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.export.tracing import bind, trace
from wanc.compiler.fuse import Fuse
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.models.wan.causal import CausalStep, causal_step, graphs
from wanc.models.weights import Weight
from wanc.recipe.schema import PARTS
from wanc.runtime import safetensors
from wanc.runtime.kvcache import KeyValueRing, KeyValueWindow
from wanc.runtime.parts import Parts

from .fusing import OneComponent, files_of, operators, relative_error

NAME, FILE, CHUNKS = "denoiser_high", "weights.safetensors", 5
WINDOW = KeyValueWindow(sink=1, recent=2)
# Two float32 implementations that sum in other orders; a wrong mask, position or slot is a hundred times the bound.
FLOAT32 = 1e-5
ENGINES: Mapping[str, Compiler] = {"onnxruntime": OnnxRuntimeCompiler(), "openvino": OpenVinoCompiler("fp32", ())}


FORMS = [("fp32", "absolute"), ("fp32", "relative")]
SLOW_FORMS = [*product(("fp16", "int8", "int4"), ("absolute", "relative"))]


@pytest.fixture(
    scope="module",
    params=[*FORMS, *(pytest.param(form, marks=pytest.mark.slow) for form in SLOW_FORMS)],
    ids=lambda form: "-".join(form),
)
def model(request: pytest.FixtureRequest) -> CausalStep:
    torch.manual_seed(5)
    return causal_step(CONFIG, *request.param)


@pytest.fixture(scope="module")
def fused(model: CausalStep, tmp_path_factory: pytest.TempPathFactory) -> OneComponent:
    source, folder, made = (tmp_path_factory.mktemp(name) for name in ("source", "exported", "fused"))
    safetensors.write(source / FILE, {name: value.numpy() for name, value in model.state_dict().items()})
    weights = {
        name: Weight(FILE, info.offset, info.length, "FLOAT", info.shape)
        for name, info in safetensors.read_header(source / FILE).items()
    }
    (graph,) = graphs(CONFIG, TEXT, model.chunk.cache, model.chunk.positions)
    (folder / NAME).mkdir()
    save(bind(trace(graph), weights, where=str(source)), folder / NAME / "step.onnx")
    interface = (graph.inputs, graph.outputs, graph.example, graph.values)
    step = ProgramGraph(f"{NAME}/step.onnx", *interface, named=graph.named)
    Program("graph", None, {NAME: ProgramComponent({"step": step}, weights)}, None).write(folder)
    exported = OneComponent(NAME, files_of(folder), {FILE: source / FILE})
    return exported.fused(Fuse(None, (), (*PARTS, "chunk")), made)


def test_it_is_made_of_fused_operators_and_parts(model: CausalStep, fused: OneComponent) -> None:
    assert [*fused.lowerable] == ["time", "shape", "request", "chunk", "step"]
    step = operators(fused.graph("step"))
    layers, turned = CONFIG["num_layers"], 3 if model.chunk.positions == "relative" else 2
    assert (step["Attention"], step["RotaryEmbedding"]) == (2 * layers, turned * layers)
    assert not step["Softmax"] and not step["Sin"] and not step["ScatterND"] and not step["Mod"]


def passes(
    parts: Parts, ring: KeyValueRing, turns: Mapping[str, torch.Tensor], latents: torch.Tensor, timestep: float
) -> dict[str, Any]:
    given = {
        "latents": latents.numpy(),
        "timestep": np.array([timestep], np.float32),
        "text": text().numpy(),
        **{name: turn.numpy() for name, turn in turns.items()},
        **ring.inputs(),
    }
    return {name: value.numpy() for name, value in parts.run("step", given, branch="conditional").items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_computes_the_same(engine: str, model: CausalStep, fused: OneComponent, tmp_path: Path) -> None:
    """One engine while the ring fills and when it is full: a later chunk sees what earlier ones left in it."""
    parts = fused.compiled(ENGINES[engine], tmp_path).request()
    ring = KeyValueRing(WINDOW, dict.fromkeys(names(), (1, TOKENS, 2, 24)), precision=model.chunk.cache)
    expected = Caches.of(model, WINDOW)
    for chunk in range(CHUNKS):
        turns = turned_in_time(model, WINDOW, chunk)
        found = passes(parts, ring, turns, noise(chunk, "noisy"), NOISY)
        assert relative_error(found["velocity"], expected.velocity(chunk).numpy()) < FLOAT32
        left = passes(parts, ring, turns, noise(chunk, "clean"), CLEAN)
        ring.finish(chunk, {name: left[name.replace("past", "new", 1)] for name in names()})
        expected.finish(chunk)
