"""An engine beside its graph, by Polygraphy: here another graph stands for the engine, executed by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from wanc.compiler.engines.tensorrt import comparison
from wanc.compiler.engines.tensorrt.comparison import Comparison, compare
from wanc.compiler.on_target.engines import check_near
from wanc.errors import EXIT_REFUSED, UserError

GRAPH = (
    "g (float[rows, 4] x, int64[2] sizes) => (float[rows, 4] y, float[r, c] z) {{"
    " f = Constant <value = float {{ {factor} }}> () y = Mul (x, f) z = Reshape (y, sizes) }}"
)
PROFILES = ({"x": ((2, 4), (6, 4), (8, 4)), "sizes": ((1, 1), (4, 6), (99, 99))},)


def runner(path: Path) -> Any:
    polygraphy = pytest.importorskip("polygraphy.backend.onnxrt")
    return polygraphy.OnnxrtRunner(polygraphy.SessionFromOnnx(str(path)))


def written(folder: Path, factor: float, text: str = GRAPH) -> Path:
    path = folder / f"{factor}.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text.format(factor=factor)}'), path)
    return path


def compared(graph: Path, engine: Path) -> Comparison:
    return compare(graph, runner(engine), PROFILES, ("sizes",))


def test_the_same_is_the_same_at_usual_sizes_and_values(tmp_path: Path) -> None:
    graph = written(tmp_path, 2.0)
    assert compared(graph, graph) == Comparison({"y": 0.0, "z": 0.0})


def test_another_is_measured_and_refused(tmp_path: Path) -> None:
    found = compared(written(tmp_path, 2.0), written(tmp_path, 2.02))
    assert found.errors["y"] == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(
        UserError, match=r"a/b: the output y is 1.0e-02 from what the graph gives, and may be 1e-04"
    ) as caught:
        check_near("a/b", found, 1e-4)
    assert caught.value.exit_code == EXIT_REFUSED
    check_near("a/b", found, 3e-2)
    with pytest.raises(UserError):
        check_near("a/b", Comparison({"y": np.inf}), 3e-2)


def test_what_onnxruntime_has_no_kernel_for_is_not_compared(tmp_path: Path) -> None:
    text = "g (bfloat16[rows, 4] x, bfloat16[4, 4] w) => (bfloat16[rows, 4] y) {{ y = MatMul (x, w) }}"
    graph = written(tmp_path, 0.0, text)
    found = compare(graph, runner(graph), ({"x": ((2, 4), (2, 4), (2, 4))},), ())
    assert not found.errors and "NOT_IMPLEMENTED" in str(found.reason)


def test_what_would_take_hours_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST_BYTES", 6 * 4 * 4)
    graph = written(tmp_path, 2.0)
    assert compared(graph, graph).reason == "its inputs are too large for the graph to be executed on a processor"
