"""Collectives are what their names say, and a rank that fails leaves no other waiting."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.graphs.collectives import COLLECTIVE, RANKS_DOMAIN
from wanc.compiler.host.ranks import run_ranks

Array = np.ndarray[Any, Any]


def graph(operation: str, ranks: int, *, dtype: str = "FLOAT", reduce: str = "none", root: int = -1) -> ir.Model:
    """x → the collective → y."""
    kind = ir.TensorType(ir.DataType[dtype])
    x = ir.Value(name="x", shape=ir.Shape(["n", "m"]), type=kind)
    attributes = {"collective_operation": operation, "reduce_op": reduce, "root": root, "nb_rank": ranks}
    node = ir.node(COLLECTIVE, [x], attributes, domain=RANKS_DOMAIN)
    (y,) = node.outputs
    y.name, y.shape, y.type = "y", ir.Shape(["k", "m"]), kind
    imports = {"": 23, RANKS_DOMAIN: 1}
    return ir.Model(ir.Graph([x], [y], nodes=[node], opset_imports=imports, name="g"), ir_version=11)


def exchanged(operation: str, arrays: list[Array], **more: Any) -> list[Array]:
    model = graph(operation, len(arrays), **more)
    return [outputs["y"] for outputs in run_ranks(model, Path(), [{"x": array} for array in arrays])]


@st.composite
def brought(draw: st.DrawFn) -> list[Array]:
    """An array for each rank; all of one shape, whose first dimension is divisible by the ranks."""
    ranks, rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [random.normal(size=(ranks * rows, columns)).astype(np.float32) for _ in range(ranks)]


@given(brought())
@settings(max_examples=40, deadline=None)
def test_all_to_all_transposes_the_blocks(arrays: list[Array]) -> None:
    ranks = len(arrays)
    rows, columns = arrays[0].shape
    blocks = np.stack(arrays).reshape(ranks, ranks, rows // ranks, columns)
    expected = blocks.swapaxes(0, 1).reshape(ranks, *arrays[0].shape)
    np.testing.assert_array_equal(exchanged("all_to_all", arrays), expected)
    # Twice is nothing.
    np.testing.assert_array_equal(exchanged("all_to_all", exchanged("all_to_all", arrays)), arrays)


@given(brought())
@settings(max_examples=20, deadline=None)
def test_all_gather_is_the_same_everywhere(arrays: list[Array]) -> None:
    for found in exchanged("all_gather", arrays):
        np.testing.assert_array_equal(found, np.concatenate(arrays))


@given(brought())
@settings(max_examples=20, deadline=None)
def test_reductions_are_sums(arrays: list[Array]) -> None:
    total = np.sum(arrays, axis=0)
    for found in exchanged("all_reduce", arrays, reduce="sum"):
        np.testing.assert_array_equal(found, total)
    for found, part in zip(
        exchanged("reduce_scatter", arrays, reduce="sum"), np.split(total, len(arrays)), strict=True
    ):
        np.testing.assert_array_equal(found, part)


def test_16_bits_are_summed_in_float32() -> None:
    """1 + 2⁻⁸ + 2⁻⁸ has a number in bfloat16, and 1 + 2⁻⁸ has none."""
    arrays = [np.array([[value]], ml_dtypes.bfloat16) for value in (1, 2**-8, 2**-8)]
    for found in exchanged("all_reduce", arrays, dtype="BFLOAT16", reduce="sum"):
        assert found.dtype == ml_dtypes.bfloat16
        assert float(found[0, 0]) == 1 + 2**-7


def test_what_is_refused() -> None:
    array = np.zeros((3, 2), np.float32)
    for operation, reduce, root, reason in (
        ("all_to_all", "none", -1, "all_to_all: 3 along dimension 0 is not divisible by 2 ranks"),
        ("all_gather", "sum", -1, "all_gather with sum and root -1"),
        ("all_reduce", "none", -1, "all_reduce with none and root -1"),
        ("all_gather", "none", 0, "all_gather with none and root 0"),
        ("alltoall", "none", -1, "there is no collective alltoall"),
    ):
        with pytest.raises(ValueError, match=reason):
            exchanged(operation, [array, array], reduce=reduce, root=root)
    with pytest.raises(ValueError, match="all_gather of 4 ranks is executed by 2"):
        run_ranks(graph("all_gather", 4), Path(), [{"x": array}] * 2)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("failing", [0, 2])
def test_a_rank_that_fails_lets_the_others_go(failing: int) -> None:
    """Its own error is what is told, not that others were let go; and no thread is left."""
    inputs = [{"x": np.zeros((3, 2), np.float32)} for _ in range(3)]
    inputs[failing] = {"x": np.zeros((3, 2), np.float64)}
    before = threading.active_count()
    with pytest.raises(ValueError, match="input x is float64, where the graph takes float32"):
        run_ranks(graph("all_gather", 3), Path(), inputs)
    assert threading.active_count() == before


@pytest.mark.timeout(60)
def test_ranks_whose_parts_do_not_fit_let_each_other_go() -> None:
    """What fails when all have met."""
    inputs = [{"x": np.zeros((2, columns), np.float32)} for columns in (2, 3)]
    with pytest.raises(ValueError, match="must match exactly"):
        run_ranks(graph("all_to_all", 2), Path(), inputs)
