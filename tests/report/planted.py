"""Bundles with a fault, sealed so that everything fits: what a report has to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.bundle.resealed import seal_again

Array = np.ndarray[Any, Any]
Edit = Callable[[Array], Array]
Rewrite = Callable[[onnx.GraphProto], None]


def with_weight(bundle: Path, copy: Path, component: str, name: str, edit: Edit) -> Path:
    """A copy of a bundle of onnxruntime in which one tensor of a component's `step` graph holds other values."""
    shutil.copytree(bundle, copy)

    def change(root: Path, _: object) -> None:
        path = root / "engines" / component / "step.s0.cpu.onnx"
        model = onnx.load(path, load_external_data=False)
        (tensor,) = [entry for entry in model.graph.initializer if entry.name.startswith(name)]
        place = {entry.key: entry.value for entry in tensor.external_data}
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if not place:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(edit(array).astype(dtype), tensor.name))
            path.chmod(0o644)
            path.write_bytes(model.SerializeToString())
            return
        weights = path.parent / place["location"]
        weights.chmod(0o644)
        values = np.memmap(weights, dtype, "r+", int(place.get("offset", 0)), tuple(tensor.dims))
        values[...] = edit(np.array(values))
        values.flush()

    seal_again(copy, change)
    return copy


def with_graph(bundle: Path, copy: Path, component: str, graph: str, rewrite: Rewrite) -> Path:
    """A copy of a bundle of onnxruntime in which a component's graph has other nodes; its weights stay."""
    shutil.copytree(bundle, copy)

    def change(root: Path, _: object) -> None:
        path = root / "engines" / component / f"{graph}.s0.cpu.onnx"
        model = onnx.load(path, load_external_data=False)
        rewrite(model.graph)
        path.chmod(0o644)
        path.write_bytes(model.SerializeToString())

    seal_again(copy, change)
    return copy


def with_a_gelu_one_place_off(bundle: Path, copy: Path, expert: str, block: int) -> Path:
    """A factor between 1 and the next float32 but one moves every value by one unit in its last place."""

    def rewrite(graph: onnx.GraphProto) -> None:
        gelus = [node for node in graph.node if "Gelu" in node.op_type]
        factor = np.nextafter(np.float32(1), np.float32(2))
        _insert(graph, gelus[block], "Mul", np.array(factor, np.float32))

    return with_graph(bundle, copy, expert, "step", rewrite)


def with_another_order_of_summation(bundle: Path, copy: Path, expert: str, block: int) -> Path:
    """What a Linear adds up comes in another order: its inputs, and its weights as well."""

    def shuffled(count: int) -> Array:
        return np.random.default_rng(block).permutation(count)

    def rewrite(graph: onnx.GraphProto) -> None:
        gelus = [node for node in graph.node if "Gelu" in node.op_type]
        (product,) = [node for node in graph.node if gelus[block].output[0] in node.input]
        (weight,) = [entry for entry in graph.initializer if entry.name == product.input[1]]
        _insert(graph, gelus[block], "Gather", shuffled(weight.dims[0]), axis=-1)

    half = copy.with_name(f"{copy.name}-half")
    name = f"blocks.{block}.ffn.net.2.weight"
    with_weight(bundle, half, expert, name, lambda weight: weight[shuffled(len(weight))])
    made = with_graph(half, copy, expert, "step", rewrite)
    shutil.rmtree(half)
    return made


def with_a_frame_dropped(bundle: Path, copy: Path) -> Path:
    """Of every four frames the third is not there; the second is seen for as long as both."""

    def rewrite(graph: onnx.GraphProto) -> None:
        (last,) = [node for node in graph.node if "frames" in node.output]
        _insert(graph, last, "Gather", np.array([0, 1, 1, 3]), axis=2)

    return with_graph(bundle, copy, "vae_decoder", "steady", rewrite)


def with_the_picture_mirrored(bundle: Path, copy: Path) -> Path:
    """What is on the left of tiny-wan's 64 columns is on the right, in the first frame and in all later ones."""

    def rewrite(graph: onnx.GraphProto) -> None:
        (last,) = [node for node in graph.node if "frames" in node.output]
        _insert(graph, last, "Gather", np.arange(64)[::-1].copy(), axis=-1)

    half = copy.with_name(f"{copy.name}-half")
    with_graph(bundle, half, "vae_decoder", "first", rewrite)
    made = with_graph(half, copy, "vae_decoder", "steady", rewrite)
    shutil.rmtree(half)
    return made


def with_more_work(bundle: Path, copy: Path, products: int) -> Path:
    """Products in every step that nobody asked for, and whose results go for nothing: its values are as they were."""

    def rewrite(graph: onnx.GraphProto) -> None:
        firsts = [node for node in graph.node if node.op_type == "MatMul" and ".ffn.net.0" in node.input[1]]
        product = firsts[0]
        for number, other in enumerate(firsts[1 : 1 + products]):
            more = [
                onnx.helper.make_node("MatMul", [product.input[0], other.input[1]], [f"more_{number}"]),
                onnx.helper.make_node("ReduceMax", [f"more_{number}"], [f"most_{number}"], keepdims=1),
                onnx.helper.make_node("Mul", [f"most_{number}", "nothing"], [f"none_{number}"]),
            ]
            for node in more:
                graph.node.insert(list(graph.node).index(product), node)
            _insert(graph, product, "Add", f"none_{number}")
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.float32), "nothing"))

    half = copy.with_name(f"{copy.name}-half")
    with_graph(bundle, half, "denoiser_high", "step", rewrite)
    made = with_graph(half, copy, "denoiser_low", "step", rewrite)
    shutil.rmtree(half)
    return made


def _insert(
    graph: onnx.GraphProto, node: onnx.NodeProto, operator: str, operand: Array | str, **attributes: int
) -> None:
    """Another operator behind a node's first output, whose name is now that of the new one's result."""
    name, before = node.output[0], f"{node.output[0]}_before_{operator}_{len(graph.node)}"
    node.output[0] = before
    if not isinstance(operand, str):
        graph.initializer.append(onnx.numpy_helper.from_array(operand, f"{before}_operand"))
        operand = f"{before}_operand"
    after = onnx.helper.make_node(operator, [before, operand], [name], **attributes)
    graph.node.insert(list(graph.node).index(node) + 1, after)


def with_experts_exchanged(bundle: Path, copy: Path) -> Path:
    """The weights of one expert lie where those of the other belong."""
    shutil.copytree(bundle, copy)

    def change(root: Path, _: object) -> None:
        for high in sorted((root / "engines" / "denoiser_high").glob("*.bin")):
            low = Path(str(high).replace("denoiser_high", "denoiser_low"))
            ours, theirs = high.read_bytes(), low.read_bytes()
            for path, data in ((high, theirs), (low, ours)):
                path.chmod(0o644)
                path.write_bytes(data)

    seal_again(copy, change)
    return copy


def with_runtime(bundle: Path, copy: Path, *keys: str, value: Any) -> Path:
    """Another value in what the manifest tells the runtime."""
    shutil.copytree(bundle, copy)

    def change(_: Path, manifest: Any) -> None:
        inner = manifest["runtime"]
        for key in keys[:-1]:
            inner = inner[key]
        assert keys[-1] in inner
        inner[keys[-1]] = value

    seal_again(copy, change)
    return copy
