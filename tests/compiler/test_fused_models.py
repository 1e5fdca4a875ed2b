"""Whole models after fusing and hoisting: what is left of them, and what the engines make of it, against PyTorch.

The denoiser, the text encoder and the decoder of a small checkpoint go the way that a build takes. The same modules as
anybody exports them with `torch.onnx.export` fuse as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from tests.checkpoints import write_checkpoint
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.export.wan import Traced
from wanc.compiler.fuse import Fuse
from wanc.compiler.passes.registry import all_passes
from wanc.models.onnx_file import open_onnx
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.recipe.schema import PARTS
from wanc.runtime.interface import carried
from wanc.runtime.value import Value
from wanc.words import ISLANDS

from .fusing import (
    DEFAULT,
    HAS_BFLOAT16,
    CompiledComponent,
    OneComponent,
    export,
    files_of,
    given,
    operators,
    products_without,
    relative_error,
)
from .passes.builder import parse

# Kernels of OpenVINO that multiply matrices, alone or with more fused to them.
PRODUCTS = ("FullyConnected", "MatMul", "Convolution")
# Two float32 implementations that sum in other orders: 1e-7 to 6e-7 for these depths. What a rewrite gets wrong, an
# epsilon, an axis or a scale, is a hundred times the bound.
FLOAT32 = 1e-4
# Operands of 8 bits are off by up to 2^-9, 0.2 %, each. What comes out of these depths is off by 0.4 to 0.8 %.
BFLOAT16 = 1.5e-2
WITH_MERGED = Fuse(tuple(entry.name for entry in all_passes()), (), PARTS)
ENGINES: Mapping[str, tuple[Compiler, float]] = {
    "onnxruntime": (OnnxRuntimeCompiler(), FLOAT32),
    "openvino": (OpenVinoCompiler("fp32", ()), FLOAT32),
    "openvino bf16": (OpenVinoCompiler("bf16", ISLANDS), BFLOAT16),
}
ROOT = Path(__file__).resolve().parents[2]
LAYERS = 2
TIMESTEPS = (0.5, 500.0, 999.0)
WRITTEN_OUT = ("ScatterND", "Softmax", "ReduceMean", "ReduceL2", "Pow", "Erf", "Tanh", "SplitToSequence", "SequenceAt")
"""What no fused graph holds: norms, attention, activations and rotations in pieces."""
FUSED = ("Attention", "RMSNormalization", "RotaryEmbedding")


@dataclass(frozen=True)
class Fused:
    """A component before and after."""

    exported: OneComponent
    by_default: OneComponent
    with_merged: OneComponent

    def of(self, passes: str) -> OneComponent:
        return {"default": self.by_default, "merged": self.with_merged}[passes]


@pytest.fixture(scope="module")
def checkpoint(model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Blocks that follow one another, and the smallest decoder: a larger one has more of the same."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return open_checkpoint(write_checkpoint(folder, seed=1, layers=LAYERS, text_layers=LAYERS, text_heads=3, experts=1))


def fuse(name: str, checkpoint: Checkpoint, traced: Traced, factory: pytest.TempPathFactory) -> Fused:
    exported = export(name, checkpoint, traced, factory.mktemp("exported"))
    fused = [exported.fused(stage, factory.mktemp("fused")) for stage in (DEFAULT, WITH_MERGED)]
    return Fused(exported, *fused)


@pytest.fixture(scope="module")
def denoiser(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Fused:
    return fuse("denoiser_high", checkpoint, traced, tmp_path_factory)


@pytest.fixture(scope="module")
def encoder(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Fused:
    return fuse("text_encoder", checkpoint, traced, tmp_path_factory)


@pytest.fixture(scope="module")
def decoder(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Fused:
    return fuse("vae_decoder", checkpoint, traced, tmp_path_factory)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fused_operators(fused: OneComponent) -> dict[str, dict[str, int]]:
    """The fused operators of each graph; nothing of what they stand for is left."""
    found: dict[str, dict[str, int]] = {}
    for graph in fused.component.graphs:
        counts = operators(fused.graph(graph))
        assert not {op_type: counts[op_type] for op_type in WRITTEN_OUT if counts[op_type]}, graph
        found[graph] = {op_type: counts[op_type] for op_type in FUSED if counts[op_type]}
    return found


def assert_smaller(fused: OneComponent, graph: str, part: float) -> None:
    """At most this part of the exported nodes is left, before the graph is cut."""
    nodes = fused.report[graph]["nodes"]
    assert nodes["after"] <= part * nodes["before"], f"{graph}: {nodes['before']} nodes before, {nodes['after']} after"
    assert nodes["after"] == sum(operators(fused.read.model(graph)).values())


# What is left


@pytest.mark.parametrize("passes", ["default", "merged"])
def test_a_denoiser_is_made_of_fused_operators(denoiser: Fused, passes: str) -> None:
    """A block has two attentions with normalised queries and keys, and turns those of the first."""
    fused = denoiser.of(passes)
    assert fused_operators(fused) == {
        "time": {},
        "shape": {},
        "request": {"RMSNormalization": LAYERS},
        "step": {"Attention": 2 * LAYERS, "RMSNormalization": 3 * LAYERS, "RotaryEmbedding": 2 * LAYERS},
    }
    assert_smaller(fused, "step", 1 / 4)


def test_projections_are_merged_where_that_is_asked_for(denoiser: Fused, encoder: Fused) -> None:
    """q, k and v of self-attention become one product, and k and v of cross-attention another."""
    for component, graph, saved in ((denoiser, "step", 2), (denoiser, "request", 1), (encoder, "encode", 2)):
        plain, merged = (operators(component.of(passes).graph(graph))["MatMul"] for passes in ("default", "merged"))
        assert merged == plain - saved * LAYERS


@pytest.mark.parametrize("passes", ["default", "merged"])
def test_a_text_encoder_is_made_of_fused_operators(encoder: Fused, passes: str) -> None:
    """A layer normalises twice, and the encoder once more at its end."""
    assert fused_operators(encoder.of(passes)) == {
        "encode": {"Attention": LAYERS, "RMSNormalization": 2 * LAYERS + 1},
    }
    assert_smaller(encoder.of(passes), "encode", 1 / 3)


def test_a_decoder_is_made_of_fused_operators(checkpoint: Checkpoint, decoder: Fused) -> None:
    """Every norm of the module is one operator, and the middle's attention is another, in both graphs."""
    module = AutoencoderKLWan.from_config(checkpoint.components["vae_decoder"].config)
    norms = sum(type(entry).__name__ == "WanRMS_norm" for entry in module.decoder.modules())
    expected = {"Attention": 1, "RMSNormalization": norms}
    assert fused_operators(decoder.by_default) == {"first": expected, "steady": expected}
    for graph in ("first", "steady"):
        assert_smaller(decoder.by_default, graph, 0.36)


def test_weights_stay_by_reference(denoiser: Fused) -> None:
    """Every one is still there, and none of them is written into a graph."""

    def weights(component: OneComponent) -> set[str]:
        graphs = [component.graph(name).graph for name in component.component.graphs]
        values = [value for graph in graphs for value in graph.initializers.values()]
        return {str(value.name) for value in values if isinstance(value.const_value, ir.ExternalTensor)}

    assert weights(denoiser.exported) == denoiser.exported.component.weights.keys()
    for fused in (denoiser.by_default, denoiser.with_merged):
        assert weights(fused) == weights(denoiser.exported)


FUSE = """
import json, sys
from pathlib import Path
from tests.compiler.fusing import DEFAULT
files = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
DEFAULT.run({"program": files}, Path(sys.argv[2]), progress=False)
"""


def test_another_process_writes_the_same_bytes(denoiser: Fused, tmp_path: Path) -> None:
    """Whatever order it keeps sets in."""
    files = json.dumps({name: str(path) for name, path in denoiser.exported.files.items()})
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FUSE, files, tmp_path], env=environment, check=True)
    again = files_of(tmp_path)
    assert again.keys() == denoiser.by_default.files.keys()
    for name, path in again.items():
        assert path.read_bytes() == denoiser.by_default.files[name].read_bytes(), name


# What is computed when


def test_a_step_multiplies_nothing_but_what_comes_from_the_latents(denoiser: Fused) -> None:
    for fused in (denoiser.by_default, denoiser.with_merged):
        assert products_without(fused.graph("step"), "latents") == []
    # Before it was cut, the text's products were there: key and value in each block, and the text's own projections.
    assert len(products_without(denoiser.exported.graph("step"), "latents")) > 2 * LAYERS


def test_a_product_that_does_not_need_the_latents_is_seen() -> None:
    model = parse(
        "g (float[1, s, 4] latents, float[1, s, 4] text, float[4, 4] w) => (float[1, s, 4] y) {"
        " early = MatMul (text, w) late = MatMul (latents, w) sum = Add (early, late)"
        " shape = Shape (latents) ones = ConstantOfShape (shape) sized = MatMul (ones, w) y = Add (sum, sized) }"
    )
    assert products_without(model, "latents") == ["MatMul early", "MatMul sized"]


@pytest.mark.parametrize("passes", ["default", "merged"])
def test_each_part_takes_what_it_depends_on_and_no_more(denoiser: Fused, passes: str) -> None:
    graphs = denoiser.of(passes).component.graphs
    assert graphs.keys() == {"time", "shape", "request", "step"}
    inputs = {name: {entry.name for entry in graph.inputs} for name, graph in graphs.items()}
    results = {name: {entry.name for entry in graph.outputs} for name, graph in graphs.items()}
    assert inputs["time"] == {"timestep"}
    assert inputs["shape"] == {"latents.shape"}
    assert inputs["request"] == {"text"}
    assert inputs["step"] == {"latents"} | results["time"] | results["shape"] | results["request"]
    assert results["step"] == {"velocity"}
    assert len(results["shape"]) == 2, "cos and sin"
    assert len(results["request"]) == 2 * LAYERS, "key and value of each block"
    assert len(results["time"]) == 6 * LAYERS + 2, "six rows of modulation for each block, and two for the end"


def test_the_parts_hold_what_is_known_then(denoiser: Fused) -> None:
    """The sine of the timestep, the rope tables, and the text's projections are each in one part only."""
    found = {name: operators(denoiser.by_default.graph(name)) for name in denoiser.by_default.component.graphs}
    assert [name for name, counts in found.items() if counts["Sin"]] == ["time"]
    weights = {name: set(denoiser.by_default.graph(name).graph.initializers) for name in found}
    assert [name for name, kept in weights.items() if "condition_embedder.time_proj.weight" in kept] == ["time"]
    assert [name for name, kept in weights.items() if "blocks.1.attn2.to_k.weight" in kept] == ["request"]
    assert [name for name, kept in weights.items() if "blocks.1.attn2.to_q.weight" in kept] == ["step"]
    assert [name for name, kept in weights.items() if any(key.startswith("rope.") for key in kept)] == ["shape"]
    assert found["shape"]["MatMul"] == 0
    assert found["request"]["MatMul"] == 2 + 2 * LAYERS
    assert found["time"]["MatMul"] == 3


# What the engines make of it


def compiled(fused: OneComponent, engine: str, folder: Path) -> CompiledComponent:
    compiler, _ = ENGINES[engine]
    made = fused.compiled(compiler, folder)
    if engine == "openvino bf16" and HAS_BFLOAT16:
        assert_products_are_bfloat16(made)
    return made


def assert_products_are_bfloat16(made: CompiledComponent) -> None:
    for graph, kernels in made.kernels().items():
        products: Counter[str] = Counter()
        for (kernel, precision), count in kernels.by_type.items():
            if kernel in PRODUCTS:
                products[precision] += count
        island = graph == "time" or made.name == "vae_decoder"
        assert set(products) <= ({"f32"} if island else {"bf16"}), graph
        assert products or graph == "shape"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "openvino bf16"])
def test_every_fused_operator_is_one_kernel(
    denoiser: Fused, encoder: Fused, decoder: Fused, engine: str, tmp_path: Path
) -> None:
    for fused in (denoiser.with_merged, encoder.with_merged, decoder.by_default):
        (tmp_path / fused.name).mkdir()
        kernels = fused.compiled(ENGINES[engine][0], tmp_path / fused.name).kernels()
        assert {graph: dict(found.fused) for graph, found in kernels.items()} == fused_operators(fused)


def test_onnxruntimes_own_operators_are_used(denoiser: Fused, decoder: Fused, tmp_path: Path) -> None:
    """Tiled attention, GELUs with their bias, SiLU in one pass, and convolutions of frames."""
    found: Counter[str] = Counter()
    for fused in (denoiser.by_default, decoder.by_default):
        (tmp_path / fused.name).mkdir()
        for kernels in fused.compiled(OnnxRuntimeCompiler(), tmp_path / fused.name).kernels().values():
            found.update({kernel: count for (kernel, _), count in kernels.by_type.items()})
    assert found["MultiHeadAttention"] == 2 * LAYERS + 2, "of each block, and of both graphs of the decoder"
    assert found["FastGelu"] == LAYERS + 1, "of each block, and of the text's projection"
    assert found["QuickGelu"] == operators(*map(decoder.by_default.graph, ("first", "steady")))["Sigmoid"] + 2
    assert found["Attention"] == 0


BOTH = pytest.mark.parametrize("passes", ["default", "merged"])
EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


@BOTH
@EACH_ENGINE
@torch.no_grad()
def test_a_step_equals_diffusers(
    checkpoint: Checkpoint, denoiser: Fused, engine: str, passes: str, tmp_path: Path
) -> None:
    reference = WanTransformer3DModel.from_pretrained(checkpoint.root / "transformer", torch_dtype=torch.float32).eval()
    made = compiled(denoiser.of(passes), engine, tmp_path)
    text = random(1, checkpoint.text_length, reference.config["text_dim"], seed=0)
    text[:, 5:] = 0.0  # as the runtime pads
    # Frames, rows and columns of tokens; a single token is first, which OpenVINO does not forget by itself.
    sizes = [(1, 1, 1), (1, 3, 5), (3, 4, 6), (2, 7, 3), (5, 6, 9), (21, 1, 2)]
    for seed, (frames, rows, columns) in enumerate(sizes):
        latents, timestep = random(1, 16, frames, 2 * rows, 2 * columns, seed=seed), torch.tensor([TIMESTEPS[seed % 3]])
        (expected,) = reference(latents, timestep, text, return_dict=False)
        feeds = given({"latents": latents, "timestep": timestep, "text": text})
        velocity = made.request().run("step", feeds, branch="conditional")["velocity"].numpy()
        assert relative_error(velocity, expected.numpy()) <= ENGINES[engine][1], (frames, rows, columns)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16")
@torch.no_grad()
def test_islands_halve_what_bfloat16_costs(checkpoint: Checkpoint, denoiser: Fused, tmp_path: Path) -> None:
    """Of two blocks; the more of them add to the residual stream, the more it matters that it is float32."""
    reference = WanTransformer3DModel.from_pretrained(checkpoint.root / "transformer", torch_dtype=torch.float32).eval()
    inputs = {
        "latents": random(1, 16, 3, 8, 12, seed=0),
        "timestep": torch.tensor([500.0]),
        "text": random(1, checkpoint.text_length, reference.config["text_dim"], seed=1),
    }
    (expected,) = reference(*inputs.values(), return_dict=False)
    errors: list[float] = []
    for islands in (ISLANDS, ()):
        (tmp_path / str(len(islands))).mkdir()
        made = denoiser.by_default.compiled(OpenVinoCompiler("bf16", islands), tmp_path / str(len(islands)))
        velocity = made.request().run("step", given(inputs), branch="conditional")["velocity"].numpy()
        errors.append(relative_error(velocity, expected.numpy()))
    assert errors[0] < 0.7 * errors[1]


@BOTH
@EACH_ENGINE
@torch.no_grad()
def test_the_encoder_equals_transformers(
    checkpoint: Checkpoint, encoder: Fused, engine: str, passes: str, tmp_path: Path
) -> None:
    reference = UMT5EncoderModel.from_pretrained(checkpoint.root / "text_encoder", dtype=torch.float32).eval()
    made = compiled(encoder.of(passes), engine, tmp_path)
    # The last is past the end of the table of positions.
    for tokens in (1, 2, 9, checkpoint.text_length, 3 * reference.config.relative_attention_max_distance + 1):
        ids = torch.randint(0, 60, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        for padding in {0, tokens // 3}:
            mask = torch.ones(1, tokens, dtype=torch.int64)
            mask[:, tokens - padding :] = 0
            expected = reference(ids, attention_mask=mask).last_hidden_state
            feeds = given({"embeddings": reference.shared(ids), "mask": mask})
            hidden = made.request().run("encode", feeds, branch="conditional")["hidden"].numpy()
            assert relative_error(hidden, expected.numpy()) <= ENGINES[engine][1], (tokens, padding)


@EACH_ENGINE
@torch.no_grad()
def test_decoding_by_chunks_equals_diffusers(
    checkpoint: Checkpoint, decoder: Fused, engine: str, tmp_path: Path
) -> None:
    reference = AutoencoderKLWan.from_pretrained(checkpoint.root / "vae", torch_dtype=torch.float32).eval()
    made = compiled(decoder.by_default, engine, tmp_path)
    for seed, (frames, height, width) in enumerate([(1, 1, 1), (2, 4, 6), (1, 5, 3), (4, 3, 7)]):
        latents = 0.5 * random(1, 16, frames, height, width, seed=seed)
        expected = reference.decode(latents).sample.numpy()
        assert (np.abs(expected) == 1.0).mean() < 0.1, "clamped values hide differences"
        assert relative_error(decode(made, latents), expected) <= ENGINES[engine][1], (frames, height, width)


def decode(made: CompiledComponent, latents: torch.Tensor) -> np.ndarray[Any, Any]:
    """The video, chunk by chunk, with the caches handed on."""
    chunks: list[np.ndarray[Any, Any]] = []
    caches: dict[str, Value] = {}
    for index in range(latents.shape[2]):
        graph = "steady" if index else "first"
        feeds = {"latent": latents[:, :, index : index + 1].contiguous().numpy(), **caches}
        outputs = made.request().run(graph, feeds, branch="request")
        chunks.append(outputs["frames"].numpy())
        caches = carried(made.graphs[graph].outputs, outputs)
    return np.concatenate(chunks, axis=2).clip(-1, 1)  # as diffusers cuts it off at the end


# As others export the same modules


class Step(torch.nn.Module):
    """The denoiser as a function of tensors alone."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.module(latents, timestep, text, return_dict=False)[0]


class Encode(Step):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return self.module(ids, attention_mask=mask).last_hidden_state


class Decode(Step):
    def forward(self, latents: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return self.module.decode(latents).sample


def modules(checkpoint: Checkpoint) -> dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, int]]]:
    """Module, inputs, and the fused operators that it comes to."""
    transformer = WanTransformer3DModel.from_pretrained(checkpoint.root / "transformer", torch_dtype=torch.float32)
    encoder = UMT5EncoderModel.from_pretrained(checkpoint.root / "text_encoder", dtype=torch.float32)
    vae = AutoencoderKLWan.from_pretrained(checkpoint.root / "vae", torch_dtype=torch.float32)
    norms = sum(type(entry).__name__ == "WanRMS_norm" for entry in vae.decoder.modules())
    ids = torch.randint(0, 60, (1, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7 + [0] * 2])
    step = {
        "latents": random(1, 16, 3, 8, 6, seed=0),
        "timestep": torch.tensor([700.0]),
        "text": random(1, checkpoint.text_length, transformer.config["text_dim"], seed=1),
    }
    return {
        "transformer": (
            Step(transformer),
            step,
            {"Attention": 2 * LAYERS, "RMSNormalization": 4 * LAYERS, "RotaryEmbedding": 2 * LAYERS},
        ),
        "text encoder": (
            Encode(encoder),
            {"ids": ids, "mask": mask},
            {"Attention": LAYERS, "RMSNormalization": 2 * LAYERS + 1},
        ),
        "decoder": (
            Decode(vae),
            {"latents": 0.5 * random(1, 16, 1, 4, 5, seed=0)},
            {"Attention": 1, "RMSNormalization": norms},
        ),
    }


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        pytest.param(name, opset, marks=[] if (name, opset) == ("text encoder", 20) else pytest.mark.slow)
        for name in ("transformer", "text encoder", "decoder")
        for opset in (18, 20)
    ],
)
@torch.no_grad()
def test_what_torch_exports_fuses_as_well(checkpoint: Checkpoint, name: str, opset: int, tmp_path: Path) -> None:
    module, inputs, expected_operators = modules(checkpoint)[name]
    expected = module.eval()(**inputs).numpy()
    program = torch.onnx.export(
        module, kwargs=inputs, dynamo=True, optimize=True, opset_version=opset, input_names=list(inputs), verbose=False
    )
    program.save(tmp_path / "plain.onnx", external_data=True)

    source = open_onnx(tmp_path / "plain.onnx").files
    for folder in ("exported", "fused", "engine"):
        (tmp_path / folder).mkdir()
    ExportOnnx({}, {}).run({"source": source}, tmp_path / "exported", progress=False)
    exported = OneComponent("model", files_of(tmp_path / "exported"), source)
    before = operators(exported.graph("main"))
    assert exported.graph("main").opset_imports[""] == opset
    assert before["Softmax"] and not before["Attention"], "there is something to fuse"

    fused = exported.fused(DEFAULT, tmp_path / "fused")
    assert fused_operators(fused) == {"main": expected_operators}
    assert_smaller(fused, "main", 3 / 4)
    made = fused.compiled(OnnxRuntimeCompiler(), tmp_path / "engine")
    (output,) = (value.numpy() for value in made.request().run("main", given(inputs), branch="").values())
    assert relative_error(output, expected) <= FLOAT32


# At a real width


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@torch.no_grad()
def test_a_step_as_wide_as_the_1_3b_model_equals_diffusers(
    traced: Traced, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sizes = {"head_dim": 128, "heads": 12, "ffn": 8960, "layers": 2, "text_dim": 4096, "text_length": 512, "experts": 1}
    wide = open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("wide"), seed=5, **sizes))
    reference = WanTransformer3DModel.from_pretrained(wide.root / "transformer", torch_dtype=torch.float32).eval()
    fused = export("denoiser_high", wide, traced, tmp_path_factory.mktemp("exported")).fused(
        WITH_MERGED, tmp_path_factory.mktemp("fused")
    )
    made = fused.compiled(ENGINES[engine][0], tmp_path_factory.mktemp("engine"))
    latents, timestep = random(1, 16, 2, 8, 12, seed=0), torch.tensor([500.0])
    text = random(1, 512, 4096, seed=1)
    (expected,) = reference(latents, timestep, text, return_dict=False)
    feeds = given({"latents": latents, "timestep": timestep, "text": text})
    velocity = made.request().run("step", feeds, branch="conditional")["velocity"].numpy()
    assert relative_error(velocity, expected.numpy()) <= FLOAT32
