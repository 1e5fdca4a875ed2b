"""What an open file of OpenVINO takes of memory is what its entry says, read back from the process that has it open."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from wanc.compiler.engines.lowered_graph import LoweredGraph, SizeRange
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.program.graph_file import save
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile
from wanc.runtime.engine_file import EngineMemory

WIDTH, COUNT = 2048, 8
ROWS = 4096
"""Of an execution: inputs and outputs of 32 MiB each, which nobody holds any longer behind it."""
SLACK = 12 * 2**20
"""What a process's memory grows by that has nothing to do with weights, such as the first file that it opens."""
KEYS, HEADS, HEAD = 2304, 8, 128
OPEN = """
import json, sys
from pathlib import Path
import numpy as np
from tests.compiler.test_openvino_memory import anonymous_bytes
from wanc.runtime.backends.openvino import OpenVino, core
core().available_devices
before = anonymous_bytes()
engine = OpenVino(Path(sys.argv[1]), threads=1, thrifty=True)
opened = anonymous_bytes() - before
x = np.ones((1, int(sys.argv[3]), int(sys.argv[2])), np.float32)
for _ in range(2):
    engine.run({"x": x})
del x
print(json.dumps([opened, anonymous_bytes() - before]))
"""


def anonymous_bytes() -> int:
    """Of this process, without the pages of files."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def built(folder: Path, compute: str, *, turns: bool) -> tuple[Path, EngineMemory]:
    """Products one after the other, as Linears of a checkpoint in float32."""
    names = [f"w{index}" for index in range(COUNT)]
    steps = [
        f"t{index} = Transpose <perm = [1, 0]> (w{index}) "
        f"{'y' if index == COUNT - 1 else f'h{index}'} = MatMul ({f'h{index - 1}' if index else 'x'}, t{index})"
        for index in range(COUNT)
    ]
    inputs = ", ".join(f"float[{WIDTH}, {WIDTH}] {name}" for name in names)
    text = f"g (float[1, n, {WIDTH}] x, {inputs}) => (float[1, n, {WIDTH}] y) {{ {' '.join(steps)} }}"
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}'))
    weights = np.random.default_rng(0).standard_normal((COUNT, WIDTH, WIDTH), np.float32) / np.sqrt(WIDTH)
    (folder / "source.bin").write_bytes(weights.astype(np.float32).tobytes())
    size = WIDTH * WIDTH * 4
    for index, value in enumerate(list(model.graph.inputs)[1:]):
        model.graph.inputs.remove(value)
        shape = ir.Shape([WIDTH, WIDTH])
        value.const_value = ir.ExternalTensor(
            "source.bin", index * size, size, ir.DataType.FLOAT, shape=shape, name=str(value.name)
        )
        model.graph.register_initializer(value)
    sources: Mapping[str, Path] = {"source.bin": folder / "source.bin"}
    with WeightFile(folder / "weights.bin", sources, FiniteCheck("part"), turns=turns) as stored:
        stored.absorb(model)
    save(model, folder / "step.onnx")
    compiler = OpenVinoCompiler(compute, ())
    (path,) = compiler.compile("part", {"step": LoweredGraph(folder / "step.onnx", {"n": 3})}, stored.files).values()
    memory = compiler.memory(path)
    assert memory is not None
    return path, memory


@pytest.mark.parametrize("compute", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("turns", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["as-stored", "turned"])
def test_an_open_file_takes_what_its_entry_says(tmp_path: Path, compute: str, turns: bool) -> None:
    path, memory = built(tmp_path, compute, turns=turns)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), str(WIDTH), str(ROWS)], stdout=subprocess.PIPE, check=True
    )
    opened, executed = json.loads(done.stdout)
    assert memory.opened - SLACK < opened < memory.opened + SLACK
    assert executed < memory.opened + SLACK
    assert memory.opening - memory.opened == path.with_suffix(".bin").stat().st_size


@pytest.mark.parametrize(("compute", "element_bytes"), [("fp32", 4), ("bf16", 2)])
def test_what_attention_keeps_of_the_largest_request_is_counted(
    tmp_path: Path, compute: str, element_bytes: int
) -> None:
    def heads(name: str) -> str:
        return f"{name}r = Reshape (x, split) {name} = Transpose <perm = [0, 2, 1, 3]> ({name}r)"

    width = HEADS * HEAD
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[1, n, {width}] x) => (float[1, n, {width}] y)
    <int64[4] split = {{0, 0, {HEADS}, {HEAD}}}, int64[3] joined = {{0, 0, {width}}}, float two = {{2.0}}> {{
        {heads("q")} {heads("v")} kr = Mul (x, two) kh = Reshape (kr, split) k = Transpose <perm = [0, 2, 3, 1]> (kh)
        scores = MatMul (q, k) shares = Softmax (scores) taken = MatMul (shares, v)
        back = Transpose <perm = [0, 2, 1, 3]> (taken) y = Reshape (back, joined)
    }}"""
    save(ir.from_proto(onnx.parser.parse_model(text)), tmp_path / "step.onnx")
    compiler = OpenVinoCompiler(compute, ())
    requests = tuple({"n": SizeRange(rows, rows, rows)} for rows in (64, KEYS, 16))
    lowered = LoweredGraph(tmp_path / "step.onnx", {"n": 3}, requests)
    (path,) = compiler.compile("part", {"step": lowered}, frozenset()).values()
    memory = compiler.memory(path)
    assert memory is not None
    kept = 2 * element_bytes * KEYS * width
    assert kept < memory.opened < kept + 2 * 2**20
    command = [sys.executable, "-c", OPEN, str(path), str(width), str(KEYS)]
    opened, executed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert executed - opened == pytest.approx(kept, rel=0.15)
