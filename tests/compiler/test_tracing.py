"""What an exported graph says: its interface, its opset, where its weights lie, and nothing of who exported it."""

from __future__ import annotations

import site
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from tests.checkpoints import write_checkpoint
from wanc.compiler.export.tracing import bind, trace
from wanc.compiler.export.wan import Traced
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import ProgramGraph
from wanc.errors import CheckpointError
from wanc.models.wan import text_encoder
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.models.weights import Weight

from .builder import Lowered, lower

GRAPHS = {
    "denoiser_high": ("step",),
    "text_encoder": ("encode",),
    "vae_decoder": ("first", "steady"),
}
CASES = [(component, graph) for component, graphs in GRAPHS.items() for graph in graphs]
# Tables that are computed and not learned: of positions, and of relative distances.
CONSTANTS = {"rope.freqs_cos", "rope.freqs_sin", "bucket_table.buckets"}


@pytest.fixture(scope="module")
def components(model: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    return {name: lower(name, model, traced, tmp_path_factory.mktemp(name)) for name in GRAPHS}


def exported(components: dict[str, Lowered], component: str, graph: str) -> Path:
    return components[component].folder / f"{graph}.onnx"


def read(path: Path) -> onnx.ModelProto:
    return onnx.load(path, load_external_data=False)


def described(values: object) -> list[str]:
    """Each value as `name type[dimensions]`."""
    lines: list[str] = []
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        dims = [dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim]
        lines.append(f"{value.name} {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}[{', '.join(dims)}]")
    return lines


def test_the_interface_of_the_step(components: dict[str, Lowered]) -> None:
    graph = read(exported(components, "denoiser_high", "step")).graph
    assert described(graph.input) == [
        "latents float[1, 16, frames, 2*rows, 2*columns]",
        "timestep float[1]",
        "text float[1, 16, 16]",
    ]
    assert described(graph.output) == ["velocity float[1, 16, frames, 2*rows, 2*columns]"]


def test_the_interface_of_the_encoder(components: dict[str, Lowered]) -> None:
    graph = read(exported(components, "text_encoder", "encode")).graph
    assert described(graph.input) == ["embeddings float[1, tokens, 16]", "mask int64[1, tokens]"]
    assert described(graph.output) == ["hidden float[1, tokens, 16]"]


def test_the_interface_of_the_decoder(components: dict[str, Lowered]) -> None:
    first = read(exported(components, "vae_decoder", "first")).graph
    steady = read(exported(components, "vae_decoder", "steady")).graph
    assert described(first.input) == ["latent float[1, 16, 1, height, width]"]
    assert described(steady.input)[0] == described(first.input)[0]
    assert described(first.output)[0] == "frames float[1, 3, 1, 8*height, 8*width]"
    assert described(steady.output)[0] == "frames float[1, 3, 4, 8*height, 8*width]"
    caches = described(steady.input)[1:]
    assert caches[0] == "cache_0 float[1, 16, 2, height, width]"
    assert caches[-1].endswith("[1, 4, 2, 8*height, 8*width]")
    assert len(caches) == len({cache.split()[0] for cache in caches})
    # What a graph hands on is what the next one takes.
    assert described(first.output)[1:] == [cache.replace("cache_", "next_") for cache in caches]
    assert described(steady.output)[1:] == described(first.output)[1:]


def test_a_program_declares_what_the_graphs_say(components: dict[str, Lowered]) -> None:
    names = {"float32": "float", "int64": "int64"}
    for component, graph in CASES:
        declared: ProgramGraph = components[component].lowered[graph]
        proto = read(exported(components, component, graph)).graph
        inputs = [f"{e.name} {names[e.dtype]}[{', '.join(map(str, e.shape))}]" for e in declared.inputs]
        outputs = [f"{e.name} float[{', '.join(map(str, e.shape))}]" for e in declared.outputs]
        assert (inputs, outputs) == (described(proto.input), described(proto.output))


def test_every_cache_has_an_heir(components: dict[str, Lowered]) -> None:
    for graph in ("first", "steady"):
        declared = components["vae_decoder"].lowered[graph]
        states = [entry.state for entry in declared.outputs if entry.state is not None]
        assert states == [e.name for e in components["vae_decoder"].lowered["steady"].inputs if e.name != "latent"]


@pytest.mark.parametrize(("component", "graph"), CASES)
def test_standard_onnx_of_opset_23_that_the_checker_passes(
    components: dict[str, Lowered], model: Checkpoint, component: str, graph: str
) -> None:
    path = exported(components, component, graph)
    lowered = components[component].paths[graph]
    for file, own in ((path, {}), (lowered, {"com.microsoft": 1})):
        proto = read(file)
        opsets = {opset.domain: opset.version for opset in proto.opset_import}
        assert opsets.items() <= {"": 23, **own}.items()
        assert {node.domain for node in proto.graph.node} == opsets.keys()
        assert not proto.functions
    # The checker wants the weights where the graph says that they are.
    beside = model.root / f"{component}.{graph}.onnx"
    beside.write_bytes(path.read_bytes())
    try:
        onnx.checker.check_model(str(beside), full_check=True)
    finally:
        beside.unlink()
    onnx.checker.check_model(str(lowered), full_check=True)


@pytest.mark.parametrize(("component", "graph"), CASES)
def test_weights_are_references_into_the_checkpoint(
    components: dict[str, Lowered], model: Checkpoint, component: str, graph: str
) -> None:
    proto = read(exported(components, component, graph)).graph
    weights = model.components[component].weights
    embedded = {tensor.name for tensor in proto.initializer if not uses_external_data(tensor)}
    assert embedded <= CONSTANTS
    referred: set[str] = set()
    for tensor in proto.initializer:
        if tensor.name not in embedded:
            info, weight = ExternalDataInfo(tensor), weights[tensor.name]
            assert (info.location, info.offset, info.length) == (weight.file, weight.offset, weight.length)
            assert tuple(tensor.dims) == weight.shape
            assert onnx.TensorProto.DataType.Name(tensor.data_type) == weight.dtype
            referred.add(tensor.name)
    # Nothing that was learned is left behind, except what the runtime gathers, and the half of the VAE that encodes.
    unused = {name for name in weights if name.startswith(("shared.", "encoder.embed_tokens", "quant_conv."))}
    if component == "vae_decoder":
        unused |= {name for name in weights if name.startswith("encoder.")}
        unused |= {name for name in weights if graph == "first" and ".time_conv." in name}
    assert referred == weights.keys() - unused


def test_graphs_are_small(components: dict[str, Lowered]) -> None:
    """Weights of real sizes would not fit; the tables of positions do (1,024 places for each of 12 channels)."""
    tables = 2 * 1024 * 12 * 8
    for component, graph in CASES:
        assert exported(components, component, graph).stat().st_size < 600_000 + tables


@pytest.mark.parametrize(("component", "graph"), CASES)
def test_nothing_of_the_machine_is_written_down(components: dict[str, Lowered], component: str, graph: str) -> None:
    lowered = components[component].paths[graph]
    for path in (exported(components, component, graph), lowered):
        data = path.read_bytes()
        secrets = [
            str(Path.home()),
            sys.prefix,
            *site.getsitepackages(),
            str(Path(__file__).parents[2]),
            str(path.parent),
        ]
        for secret in (*secrets, ".py", "Traceback", "line ", "site-packages", "pkg.torch"):
            assert secret.encode() not in data, secret
        proto = read(path)
        assert (proto.producer_name, proto.producer_version) == ("wanc", "")
        assert not proto.doc_string and not proto.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_exporting_twice_gives_the_same_bytes(
    model: Checkpoint, components: dict[str, Lowered], tmp_path: Path
) -> None:
    component = model.components["text_encoder"]
    (graph,) = text_encoder.graphs(component.config)
    save(bind(trace(graph), component.weights, where="text_encoder"), tmp_path / "encode.onnx")
    assert (tmp_path / "encode.onnx").read_bytes() == exported(components, "text_encoder", "encode").read_bytes()


def test_the_experts_share_one_trace(model: Checkpoint, traced: Traced) -> None:
    high = traced.graphs("denoiser_high", model.components["denoiser_high"], model)
    low = traced.graphs("denoiser_low", model.components["denoiser_low"], model)
    assert [trace for _, trace in high] == [trace for _, trace in low]
    encoder = traced.graphs("text_encoder", model.components["text_encoder"], model)
    assert encoder[0][1] is not high[0][1]


def test_binding_leaves_the_trace_as_it_was(model: Checkpoint, traced: Traced, tmp_path: Path) -> None:
    """One trace is bound to the weights of both experts, in whatever dtype each of them has."""
    half = open_checkpoint(
        write_checkpoint(tmp_path / "model", seed=5, dtype=torch.float16), ("denoiser_high",)
    ).components["denoiser_high"]
    full = model.components["denoiser_high"]
    ((_, traced_step),) = traced.graphs("denoiser_high", full, model)
    for index, weights in enumerate((full.weights, half.weights, full.weights)):
        save(bind(traced_step, weights, where="transformer"), tmp_path / f"{index}.onnx")
    first, second, third = (tmp_path / f"{index}.onnx" for index in range(3))
    assert first.read_bytes() == third.read_bytes()
    assert {tensor.data_type for tensor in read(second).graph.initializer if uses_external_data(tensor)} == {
        onnx.TensorProto.FLOAT16
    }


def test_faults_of_the_weights_name_the_tensor(model: Checkpoint, traced: Traced) -> None:
    full = model.components["denoiser_high"]
    ((_, step),) = traced.graphs("denoiser_high", full, model)
    name = "blocks.0.attn1.to_q.weight"
    with pytest.raises(CheckpointError) as caught:
        bind(step, {key: weight for key, weight in full.weights.items() if key != name}, where="transformer")
    assert str(caught.value) == f"transformer: the weights hold no tensor named {name}"
    wrong = Weight("file", 0, 4 * 24, "FLOAT", (4, 24))
    with pytest.raises(CheckpointError) as caught:
        bind(step, {**full.weights, name: wrong}, where="transformer")
    assert str(caught.value) == f"transformer: {name} has shape [4, 24]; its configuration asks for [24, 24]"


def test_bound_weights_are_widened_where_they_are_used(model: Checkpoint, traced: Traced) -> None:
    """The graph computes in float32 whatever the checkpoint stores; the source keeps its dtype until an engine asks."""
    full = model.components["denoiser_high"]
    ((_, step),) = traced.graphs("denoiser_high", full, model)
    weights = {
        name: Weight(weight.file, weight.offset, weight.length // 2, "BFLOAT16", weight.shape)
        for name, weight in full.weights.items()
    }
    bound = bind(step, weights, where="transformer")
    for name in weights:
        consumers = [use.node for use in bound.graph.initializers[name].uses()]
        assert [node.op_type for node in consumers] == ["Cast"], name
        assert consumers[0].attributes["to"].as_int() == onnx.TensorProto.FLOAT
        assert np.dtype(consumers[0].outputs[0].dtype.numpy()) == np.float32
