"""The integer peers: ONNX Runtime and OpenVINO, each with what its own tool makes of the plain export.

They come as they are out of the box, and with the ends of the model in float32, as somebody would have them who looked
where the error comes from.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from math import prod
from pathlib import Path

import nncf
import onnx
import onnxruntime
import openvino
from onnxruntime.quantization import QuantType, quantize_dynamic

from wanc.bench.peers import Inputs, arrays, open_vino_request, session_options
from wanc.compiler.engines.products import Products, onnxruntime_products, openvino_products


def dynamic(plain: Path, folder: Path, *, keep_ends: bool) -> Path:
    """ONNX Runtime's dynamic quantisation: a scale for each row of a weight, and inputs rounded as they come.

    With `keep_ends` the products of the timestep and the last one stay in float32; the first is a convolution, and
    does so anyway.
    """
    folder.mkdir()
    model = onnx.load(plain)
    # The exporter's shapes have names that the quantiser's own shape inference takes for contradictions.
    model.graph.ClearField("value_info")
    cleared, out = folder / "cleared.onnx", folder / "dynamic.onnx"
    onnx.save(model, cleared, save_as_external_data=True, location="cleared.bin")
    logging.disable(logging.WARNING)  # it advises a preparation that changes neither time nor error of this graph
    try:
        quantize_dynamic(
            cleared,
            out,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=_ends_in_onnx(model) if keep_ends else [],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    finally:
        logging.disable(logging.NOTSET)
    return out


def _ends_in_onnx(model: onnx.ModelProto) -> list[str]:
    """The products of the timestep, which are Gemm and which the quantiser first makes MatMul of, and the last one."""
    *_, last = (node.name for node in model.graph.node if node.op_type == "MatMul")
    return [last, *(f"{node.name}_MatMul" for node in model.graph.node if node.op_type == "Gemm")]


def calibrated(plain: Path, samples: Sequence[Inputs], folder: Path, *, keep_ends: bool) -> Path:
    """NNCF's post-training quantisation as it is for transformers: mixed preset, SmoothQuant, bias correction."""
    folder.mkdir()
    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(plain)
    with redirect_stdout(StringIO()):
        quantized = nncf.quantize(
            model,
            nncf.Dataset([arrays(sample) for sample in samples]),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=_ends_in_open_vino(model)) if keep_ends else None,
        )
    out = folder / "calibrated.xml"
    openvino.save_model(quantized, out, compress_to_fp16=False)
    return out


def _ends_in_open_vino(model: openvino.Model) -> list[str]:
    """What the latents go in by, what is computed of the timestep (in one row), and what the result comes out of."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "MatMul")]
    return [
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() == "Convolution" or prod(node.output(0).shape[:-1]) == 1 or node is nodes[-1]
    ]


def executed_by_onnx_runtime(path: Path, inputs: Inputs) -> Products:
    """What ONNX Runtime multiplies, from the profile of one more execution."""
    options = session_options(threads=1)
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(".profile"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, arrays(inputs))
    return onnxruntime_products(json.loads(Path(session.end_profiling()).read_bytes()))


def executed_by_open_vino(path: Path, inputs: Inputs, precision: str) -> Products:
    """What OpenVINO multiplies, from the graph of one more execution."""
    request = open_vino_request(path, 1, precision)
    request.infer(arrays(inputs))
    return openvino_products(request.get_compiled_model(), openvino.Core().read_model(path))
