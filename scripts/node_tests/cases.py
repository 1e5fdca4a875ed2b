"""ONNX's own tests of its operators: a model of one node each, or of what the node stands for, with its arrays."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx

SEED = 7
"""The cases draw their arrays when their modules are imported."""


@dataclass(frozen=True)
class Case:
    """One test: `inputs` and `outputs` are what it gives and expects, by name. A value is an array, a list, or None."""

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        """The operator that the case is about: of one that was written out, the name says it."""
        nodes = self.model.graph.node
        return nodes[0].op_type if len(nodes) == 1 else self.name.removeprefix("test_").split("_")[0]


@cache
def all_cases() -> Sequence[Case]:
    """Every case of the installed onnx, in its order, with the same arrays each time in a fresh process."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of overflows that are meant
        np.random.seed(SEED)
        return [_case(case) for case in load_model_tests(kind="node")]


def folded(case: Case, kept: int) -> Case | None:
    """The case with all inputs as constants but the first so many; None where that is no other one."""
    constants = {name: value for name, value in list(case.inputs.items())[kept:] if isinstance(value, np.ndarray)}
    constants = {name: value for name, value in constants.items() if value.dtype.kind not in "OU"}
    if not constants:
        return None
    model = _copy(case.model)
    declared = {value.name: value for value in model.graph.input}
    for name, value in constants.items():
        model.graph.input.remove(declared[name])
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.ir_version = max(model.ir_version, 4)
    inputs = {name: value for name, value in case.inputs.items() if name not in constants}
    return replace(case, model=model, inputs=inputs)


def opened(case: Case) -> Case:
    """The case with sizes that its model does not say."""
    model = _copy(case.model)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    return replace(case, model=model)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def sample(count: int, seed: int) -> Sequence[Case]:
    """So many cases, of as many operators as there are: one of each in turn, in an order that the seed says."""
    drawn = random.Random(seed)
    waiting: dict[str, list[Case]] = {}
    for case in drawn.sample(all_cases(), len(all_cases())):
        waiting.setdefault(case.operator, []).append(case)
    chosen: list[Case] = []
    while len(chosen) < count and waiting:
        for operator in list(waiting):
            chosen.append(waiting[operator].pop())
            if not waiting[operator]:
                del waiting[operator]
    return chosen[:count]


def _case(test: Any) -> Case:
    ((inputs, outputs),) = test.data_sets
    graph = test.model.graph
    return Case(
        test.name,
        test.model,
        {value.name: _value(given) for value, given in zip(graph.input, inputs, strict=True)},
        {value.name: _value(given) for value, given in zip(graph.output, outputs, strict=True)},
        test.rtol,
        test.atol,
    )


def _value(given: Any) -> Any:
    if isinstance(given, onnx.TensorProto):
        return onnx.numpy_helper.to_array(given)
    if isinstance(given, list):
        return [_value(entry) for entry in given]
    return given if given is None else np.asarray(given)
