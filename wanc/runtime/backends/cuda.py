"""The engine `onnxruntime` on one NVIDIA GPU: the first that its library sees. Values stay in its memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import onnxruntime

from ..errors import TargetError
from ..value import Array, Value
from .base import DeviceBackend
from .onnxruntime import numpy_dtype, open_session, session_options

PROVIDER, DEVICE = "CUDAExecutionProvider", "cuda"
EXACT: Mapping[str, str] = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
"""Products in float32 are that: TF32's factors have 10 bits, and the record would tell. How convolutions are computed
follows from their sizes, not from which way was the fastest a moment ago."""
INSTALL = (
    "pip uninstall -y onnxruntime, then pip install -r requirements.txt, which the bundle has; "
    "with wanc, wanc[gpu] in place of wanc[cpu]"
)


def check_cuda() -> None:
    """Raises TargetError where the onnxruntime that is installed is not for GPUs: before anything is opened."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise TargetError(
            "this bundle is for an NVIDIA GPU, and the onnxruntime that is installed is not built for any", hint=INSTALL
        )


@dataclass(frozen=True)
class DeviceTensor:
    """A tensor in the memory of a device."""

    tensor: onnxruntime.OrtValue

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype = numpy_dtype(self.tensor.data_type())
        assert dtype is not None, "values of graphs are of types that numpy has"
        return dtype

    @property
    def nbytes(self) -> int:
        return self.tensor.tensor_size_in_bytes()

    def numpy(self) -> Array:
        return cast(Array, self.tensor.numpy())


class OnnxRuntimeCuda(DeviceBackend):
    """One `.onnx` file; its weights lie beside it, and are copied to the GPU when it is opened.

    What has no kernel there is executed by the CPU. `provider` and `device` are those of the library, `options` those
    of the provider.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        lanes: int = 1,
        *,
        provider: str = PROVIDER,
        device: str = DEVICE,
        options: Mapping[str, str] = EXACT,
    ) -> None:
        if device == DEVICE:
            check_cuda()
            onnxruntime.preload_dlls()  # CUDA's libraries and cuDNN, where they are Python packages
        self._session = open_session(path, session_options(threads, lanes), [(provider, dict(options))])
        if provider not in self._session.get_providers():
            raise TargetError(
                "onnxruntime finds no NVIDIA GPU, or not the libraries that it takes to use one",
                hint="look with nvidia-smi for the GPU; its CUDA and cuDNN come with pip install "
                "'onnxruntime-gpu[cuda,cudnn]', in the version that requirements.txt has",
            )
        self._device, self._placing = device, Lock()
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run_there(self, inputs: Mapping[str, Value]) -> list[Value]:
        binding = self._session.io_binding()
        with self._placing:  # what two lanes are given is copied once
            placed = {name: value.held(DeviceTensor, self._place) for name, value in inputs.items()}
        for name, value in placed.items():
            binding.bind_ortvalue_input(name, value.tensor)
        for name in self.outputs:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        return [Value(DeviceTensor(tensor)) for tensor in binding.get_outputs()]

    def _place(self, array: Array) -> DeviceTensor:
        # A contiguous copy of a number would be a row of one.
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        return DeviceTensor(onnxruntime.OrtValue.ortvalue_from_numpy(contiguous, self._device))
