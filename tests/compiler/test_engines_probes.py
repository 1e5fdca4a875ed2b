"""Single Linears of a lowered graph: what they give is their input, rounded, times their codes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import rounded_inputs
from wanc.calibration.weights import Codes
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino import probe as openvino_probe
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.halves import SORTED
from wanc.runtime.backends.openvino import core

from .fusing import relative_error
from .passes.builder import parse
from .quantised import STEP, compiled, quantise
from .weighted import Array

INTO, OUT, HEADS = 64, 48, 2
# ONNX Runtime's integer kernel adds the same integers; OpenVINO multiplies by the inverse of a step, so that an input
# in the middle between two codes may become the other one.
TOLERANCES = {"onnxruntime": 1e-6, "openvino": 1e-3}
COMPILERS: dict[str, Compiler] = {"onnxruntime": OnnxRuntimeCompiler(), "openvino": OpenVinoCompiler("fp32", ())}
NAMES = ("a.to_q", "a.to_k")

PROJECTION = """
{0}t = Transpose <perm = [1, 0]> (a.to_{0}.weight) {0}m = MatMul (x, {0}t) {0}a = Add ({0}m, a.to_{0}.bias)
{0}n = RMSNormalization <axis = -1> ({0}a, {0}s)
{0}r = RotaryEmbedding <interleaved = 1, num_heads = 2> ({0}n, cos, sin)
"""


def attention() -> tuple[ir.Model, dict[str, Codes]]:
    """Rotated queries and keys, both quantised, with biases; and their codes."""
    names = [f"{name}.{kind}" for name in NAMES for kind in ("weight", "bias")]
    parameters = "".join(f", float[{f'{OUT}, {INTO}' if 'weight' in name else OUT}] {name}" for name in names)
    half = OUT // HEADS // 2
    model = parse(
        f"g (float[1, n, {INTO}] x, float[1, n, {half}] cos, float[1, n, {half}] sin, float[1, n, {OUT}] v,"
        f" float[{OUT}] qs, float[{OUT}] ks{parameters}) => (float[1, n, {OUT}] y)"
        f"{{ {PROJECTION.format('q')} {PROJECTION.format('k')}"
        f" y = Attention <q_num_heads = {HEADS}, kv_num_heads = {HEADS}> (qr, kr, v) }}",
        *names,
    )
    return model, quantise(model, dict.fromkeys(NAMES, (OUT, INTO)))


def rows(count: int) -> Array:
    return np.random.default_rng(count).normal(size=(count, INTO)).astype(np.float32)


@pytest.mark.parametrize("engine", COMPILERS)
@pytest.mark.parametrize("count", [1, 33])
def test_a_linear_gives_rows_times_its_codes(engine: str, count: int, tmp_path: Path) -> None:
    """Without its bias, whatever the kernel has in it; and with its columns as they were."""
    model, codes = attention()
    prober = COMPILERS[engine].prober(compiled(COMPILERS[engine], model, tmp_path))
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    for name in NAMES:
        outputs = prober.run(name, rows(count))
        assert outputs is not None
        expected = rounded_inputs(rows(count), "int8", STEP["int8"]) @ codes[name].weights().T
        assert relative_error(outputs, expected) <= TOLERANCES[engine]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


@pytest.mark.parametrize("engine", COMPILERS)
def test_what_is_no_quantised_linear_gives_nothing(engine: str, tmp_path: Path) -> None:
    prober = COMPILERS[engine].prober(compiled(COMPILERS[engine], attention()[0], tmp_path))
    assert prober.run("a.to_v", rows(1)) is None


def test_columns_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenVINO's have been sorted, for its rotation of halves."""
    monkeypatch.setattr(openvino_probe, "in_order", lambda outputs, product: outputs)
    model, codes = attention()
    path = compiled(COMPILERS["openvino"], model, tmp_path)
    assert sum(SORTED in node.get_friendly_name() for node in core().read_model(path).get_ops()) >= len(NAMES)
    outputs = COMPILERS["openvino"].prober(path).run(NAMES[0], rows(33))
    assert outputs is not None
    expected = rounded_inputs(rows(33), "int8", STEP["int8"]) @ codes[NAMES[0]].weights().T
    assert relative_error(outputs, expected) > 0.5
