"""The peers: PyTorch, ONNX Runtime and OpenVINO, each on the same denoiser as its own documentation would have it.

The ONNX graph that they get is PyTorch's plain export at the case's size: nobody has to handle sizes that change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import openvino
import torch

from wanc.bench.case import HEAD_SIZE, Case
from wanc.quiet import only_errors, quiet

OPSET = 20
FATAL_ONLY = 4
Array = np.ndarray[Any, Any]
Step = Callable[[], Array]
Inputs = Mapping[str, torch.Tensor]


class Plain(torch.nn.Module):
    """The transformer with the one result that an exporter can name."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = module

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.transformer(latents, timestep, text, return_dict=False)[0]


def export(module: torch.nn.Module, inputs: Inputs, path: Path) -> Path:
    """PyTorch's plain export, with its own optimisations, and the weights beside it."""
    with quiet("torch.onnx"):
        names = list(inputs)
        program = torch.onnx.export(
            Plain(module), tuple(inputs.values()), input_names=names, dynamo=True, opset_version=OPSET, verbose=False
        )
        cast(Any, program).save(path, external_data=True)
    return path


def eager(module: torch.nn.Module, inputs: Inputs) -> Step:
    """PyTorch, float32."""
    return _without_gradients(Plain(module), inputs)


def compiled(module: torch.nn.Module, inputs: Inputs) -> Step:
    """torch.compile with its defaults, float32."""
    return _without_gradients(cast("Callable[..., torch.Tensor]", torch.compile(Plain(module))), inputs)


def _without_gradients(function: Callable[..., torch.Tensor], inputs: Inputs) -> Step:
    @torch.no_grad()
    def step() -> Array:
        return function(**inputs).numpy()

    return step


def autocast(module: torch.nn.Module, inputs: Inputs) -> Step:
    """PyTorch with products in bfloat16 where it thinks best."""
    plain = Plain(module)

    @torch.no_grad()
    def step() -> Array:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(**inputs).float().numpy()

    return step


def onnx_runtime(path: Path, inputs: Inputs, threads: int) -> Step:
    """ONNX Runtime with its defaults, but for the threads."""
    session = onnxruntime.InferenceSession(path, session_options(threads), providers=["CPUExecutionProvider"])
    feeds = arrays(inputs)
    return lambda: cast("list[Array]", session.run(None, feeds))[0]


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Threads do not spin while another contender works."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def transformer_optimizer(path: Path, case: Case, out: Path) -> Path:
    """The graph after ONNX Runtime's own optimizer for transformers, of the kind nearest to this one."""
    from onnxruntime.transformers.optimizer import optimize_model

    with only_errors("onnxruntime.transformers"):
        model = optimize_model(
            str(path), model_type="mmdit", num_heads=case.width // HEAD_SIZE, hidden_size=case.width, opt_level=1
        )
    model.save_model_to_file(str(out), use_external_data_format=True)
    return out


def open_vino(path: Path, inputs: Inputs, threads: int, precision: str) -> Step:
    """OpenVINO with a hint for the precision."""
    request, feeds = open_vino_request(path, threads, precision), arrays(inputs)
    return lambda: cast(Array, request.infer(feeds, share_inputs=True)[0])


def open_vino_request(path: Path, threads: int, precision: str) -> openvino.InferRequest:
    """A model, compiled for one execution at a time."""
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
    }
    return openvino.Core().compile_model(path, "CPU", config).create_infer_request()


def arrays(inputs: Inputs) -> dict[str, Array]:
    """The same, for libraries that know no tensors of torch's."""
    return {name: tensor.numpy() for name, tensor in inputs.items()}
