"""What the tests of quantised kernels share: one Linear of a scheme, in the canonical graph and in an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from wanc.calibration.schemes import SCHEMES
from wanc.calibration.weights import Codes
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.fold import remove_unused
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import OWN, ProgramComponent, ProgramGraph
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.own_file import OwnFile

from .passes.builder import parse

STEP = {"int8": 0.03, "fp8": 0.01}
"""Of inputs, by their format: both clip noise at 4 standard deviations."""
FILE = "codes.bin"


SUM = "y = Add (p, b)"


def linear(scheme: str, into: int, out: int, folder: Path | None = None, end: str = SUM) -> ir.Model:
    """x [1, n, into] · W + b, quantised by a scheme; what it decided lies in a file of `folder`, if there is one.

    Another `end` makes y [1, n, out] of the product p, and has r [1, n, out] and s [out] besides.
    """
    weight = np.random.default_rng([into, out]).normal(size=(out, into)).astype(np.float32)
    found, codes = SCHEMES[scheme], SCHEMES[scheme].codes(weight)
    values = codes.values.astype(ml_dtypes.int4) if found.weights == "int4" else codes.values
    tensors = [ir.tensor(values), ir.tensor(codes.scales if codes.group < into else codes.scales[:, 0])]
    if folder is not None:
        with OwnFile(folder, FILE) as file:
            tensors = [file.add(name, tensor) for name, tensor in zip(("codes", "scales"), tensors, strict=True)]
    step = STEP.get(found.inputs or "")
    decision = StoredDecision(*tensors, codes.group if codes.group < into else None, found.inputs, step)
    more = f", float[1, n, {out}] r, float[{out}] s" if end != SUM else ""
    model = parse(
        f"g (float[1, n, {into}] x, float[{out}, {into}] a.weight, float[{out}] b{more}) => (float[1, n, {out}] y)"
        f"{{ t = Transpose <perm = [1, 0]> (a.weight) p = MatMul (x, t) {end} }}",
        "a.weight",
    )
    insert_quantizers(model, {"a": decision})
    remove_unused(model)
    return model


def quantise(model: ir.Model, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Codes]:
    """Make weights [out, in] and biases of noise for these Linears, and the weights INT8; their codes."""
    codes: dict[str, Codes] = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        random = np.random.default_rng(seed)
        codes[name] = SCHEMES["int8"].codes(random.normal(size=shape).astype(np.float32))
        bias = model.graph.initializers[f"{name}.bias"]
        bias.const_value = ir.tensor(random.normal(size=shape[0]).astype(np.float32), name=bias.name)
    decisions = {
        name: StoredDecision(ir.tensor(found.values), ir.tensor(found.scales[:, 0]), None, "int8", STEP["int8"])
        for name, found in codes.items()
    }
    insert_quantizers(model, decisions)
    remove_unused(model)
    return codes


def compiled(compiler: Compiler, model: ir.Model, folder: Path) -> Path:
    """The file of an engine's that a model of `linear` becomes."""
    save(model, folder / "main.onnx")
    component = ProgramComponent({"main": ProgramGraph("main.onnx", (), (), {})}, {})
    files = ComponentFiles("part", component, {"main.onnx": folder / "main.onnx"}, {f"{OWN}{FILE}": folder / FILE})
    built = compile_segment(compiler, files, whole(files), CPU, folder / "out", FiniteCheck("part"))
    (file,) = built.files
    return folder / "out" / file.file
