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
