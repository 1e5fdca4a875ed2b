"""Floats that are off in their last places: how far a model moves then, no build can be held to do better than."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LAST_PLACES = 2
"""By how many of the smallest steps of its format a float is moved: as far as one sum of a few terms moves it."""


def moved(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays with every float moved up or down; whole numbers stay."""
    return {name: _moved(array, seed) for seed, (name, array) in enumerate(arrays.items())}


def moved_weights(path: Path) -> dict[str, Array]:
    """An ONNX file's weights of numpy's floats, moved, by name: those of its main graph."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model(path)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    return moved({
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in floats
    })  # fmt: skip


def _moved(array: Array, seed: int) -> Array:
    if array.dtype.kind != "f":
        return array
    signs = np.random.Generator(np.random.Philox(seed)).integers(0, 2, array.shape) * 2 - 1
    info = np.finfo(array.dtype)
    # What is as large as can be was not computed: it says "none", in a mask for one.
    moves = np.abs(array) < info.max / 4
    return np.asarray(array * np.where(moves, 1 + signs * LAST_PLACES * info.eps, 1), array.dtype)
