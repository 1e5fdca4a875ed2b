"""Any torch module as a program: its weights, its sizes, and what is said when it cannot be one."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from wanc.compiler.export.torch_module import ExportTorch, TorchInput
from wanc.compiler.program.program import Program, weight_files
from wanc.errors import UserError, render
from wanc.models.torch_module import load_module
from wanc.models.torch_source import find_files

MODELS = """
import torch

class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 8, bias=False).to(torch.bfloat16)
        self.register_buffer("offset", torch.full((1,), 0.5))

    def forward(self, x, mask, unused_default=None):
        scaled = self.linear(x) + self.offset
        return {"scaled": scaled, "kept": scaled * mask[..., None], "doubled": torch.cat([x, x], dim=1)}

def build():
    torch.manual_seed(0)
    return Scale()

class Fixed(torch.nn.Module):
    def forward(self, x):
        return x + torch.ones(2, 6)

class Branching(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

class OneInput(torch.nn.Module):
    def forward(self, x, y):
        return x * 2

class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count.add_(1.0)
        return x + self.count

class Svd(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]

class Bessel(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

class Asserting(torch.nn.Module):
    def forward(self, x):
        assert x.shape[0] == 5
        return x

class Wrapping(torch.nn.Module):
    def forward(self, x):
        try:
            return {}["scale"] * x
        except KeyError as error:
            raise ValueError("no scale") from error

def fails():
    raise ValueError("no weights here")

def fails_of_a_file():
    raise RuntimeError("no weights") from FileNotFoundError("weights.bin")

def returns_text():
    return "a model"
"""
INPUTS = (TorchInput("x", "float32", (1, "tokens", 64)), TorchInput("mask", "bool", (1, "tokens")))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, Path]]:
    """The files of a package that has the models above."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "wanc_test_models.py").write_text(MODELS)
    yield find_files("wanc_test_models:build", tmp_path, ())
    sys.modules.pop("wanc_test_models", None)


def export(source: Mapping[str, Path], out: Path, factory: str, *inputs: TorchInput, **options: object) -> Program:
    fields = {"outputs": None, "example": {"tokens": 5}, "values": {}, **options}
    out.mkdir()
    stage = ExportTorch(f"wanc_test_models:{factory}", inputs, **fields)  # type: ignore[arg-type]
    stage.run({"source": source}, out, progress=False)
    return Program.read(out / "program.json")


def refusal(source: Mapping[str, Path], out: Path, factory: str, *inputs: TorchInput, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        export(source, out, factory, *inputs, **options)
    assert caught.value.exit_code == 2
    assert not (out / "program.json").exists()
    return render(caught.value)


def test_the_program(source: Mapping[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = export(source, out, "build", *INPUTS, outputs=("scaled", "kept", "doubled"), values={"mask": 1})
    assert (program.task, program.model, program.embedding) == ("graph", None, None)
    (component,) = program.components.values()
    graph = component.graphs["main"]
    assert [(entry.name, entry.dtype, entry.shape) for entry in graph.inputs] == [
        ("x", "float32", (1, "tokens", 64)),
        ("mask", "bool", (1, "tokens")),
    ]
    # The doubled size is no input's, so it is called after the output.
    assert [(entry.name, entry.dtype, entry.shape) for entry in graph.outputs] == [
        ("scaled", "float32", (1, "tokens", 8)),
        ("kept", "float32", (1, "tokens", 8)),
        ("doubled", "float32", (1, "doubled_1", 64)),
    ]
    assert (graph.example, graph.values) == ({"tokens": 5}, {"mask": 1.0})


def test_weights_are_written_beside_the_program_in_float32(source: Mapping[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = export(source, out, "build", *INPUTS)
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    (name,) = program.components["model"].weights  # the offset is small enough to stay in the graph
    weight = program.components["model"].weights[name]
    assert (name, weight.dtype, weight.shape) == ("linear.weight", "FLOAT", (8, 64))
    stored = np.fromfile(
        weight_files(files, source)[weight.file], np.float32, count=8 * 64, offset=weight.offset
    ).reshape(weight.shape)
    torch.manual_seed(0)
    expected = torch.nn.Linear(64, 8, bias=False).to(torch.bfloat16).float().weight.detach().numpy()
    np.testing.assert_array_equal(stored, expected)
    tensor = ir.load(out / "model/main.onnx").graph.initializers["linear.weight"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert (str(tensor.location), tensor.offset, tensor.length) == (weight.file, weight.offset, weight.length)


def test_two_exports_are_equal_bytes(source: Mapping[str, Path], tmp_path: Path) -> None:
    contents: list[dict[str, bytes]] = []
    for out in (tmp_path / "first", tmp_path / "second"):
        export(source, out, "build", *INPUTS)
        contents.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert contents[0].keys() == {"program.json", "model/main.onnx", "model/weights.bin"}
    assert contents[0] == contents[1]


def test_a_value_inside_may_have_an_outputs_name(source: Mapping[str, Path], tmp_path: Path) -> None:
    """The tracer calls values after operators and submodules: `linear` is one of them."""
    out = tmp_path / "out"
    export(source, out, "build", *INPUTS, outputs=("linear", "x_1", "cat"))
    model = onnx.load(out / "model/main.onnx", load_external_data=False)
    assert [value.name for value in model.graph.output] == ["linear", "x_1", "cat"]
    made = [name for node in model.graph.node for name in node.output]
    assert len(made) == len(set(made)), "each value is made once"
    assert {"linear", "x_1", "cat"} <= set(made)


def test_a_size_that_cannot_change(source: Mapping[str, Path], tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "out", "Fixed", TorchInput("x", "float32", ("rows", 6)), example={"rows": 2})
    assert message == (
        "error: wanc_test_models:Fixed: the size rows of x cannot change, it is always 2\n"
        "hint: write 2 in its place, or give another size under example"
    )


def test_a_module_that_decides_by_values(source: Mapping[str, Path], tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "out", "Branching", TorchInput("x", "float32", (4,)))
    first, cause, *_, hint = message.splitlines()
    assert first == "error: torch cannot trace wanc_test_models:Branching"
    assert cause.startswith("caused by: Could not guard on data-dependent expression")
    assert hint == "hint: are the inputs those of forward, in order, and do the sizes under example work together?"


def line_of(text: str) -> int:
    return [line.strip() for line in MODELS.splitlines()].index(text) + 1


@pytest.mark.parametrize(
    ("factory", "operator", "line"),
    [
        ("Svd", "aten._linalg_svd", "return torch.linalg.svd(x)[1]"),
        ("Bessel", "prims.bessel_j0", "return torch.special.bessel_j0(x)"),
    ],
)
def test_an_operator_that_onnx_does_not_have_is_named_with_its_line(
    source: Mapping[str, Path], tmp_path: Path, factory: str, operator: str, line: str
) -> None:
    message = refusal(source, tmp_path / "out", factory, TorchInput("x", "float32", (4, 4)))
    first, cause, hint = message.splitlines()
    assert first == f"error: torch cannot trace wanc_test_models:{factory}"
    assert cause.startswith(f"caused by: No ONNX function found for <OpOverload(op='{operator}'")
    assert cause.endswith(f"(wanc_test_models.py:{line_of(line)})")
    assert hint == "hint: ONNX has no such operator: write that line with others"


def test_what_forward_raises_is_told_with_its_causes(source: Mapping[str, Path], tmp_path: Path) -> None:
    asserted = refusal(source, tmp_path / "out", "Asserting", TorchInput("x", "float32", (4,)))
    assert asserted.splitlines()[1] == (
        f"caused by: AssertionError (wanc_test_models.py:{line_of('assert x.shape[0] == 5')})"
    )
    raised, looked_up = 'raise ValueError("no scale") from error', 'return {}["scale"] * x'
    wrapped = refusal(source, tmp_path / "out2", "Wrapping", TorchInput("x", "float32", (4,)))
    assert wrapped.splitlines()[1:3] == [
        f"caused by: ValueError: no scale (wanc_test_models.py:{line_of(raised)})",
        f"caused by: KeyError: 'scale' (wanc_test_models.py:{line_of(looked_up)})",
    ]


def test_a_module_that_counts_its_calls(source: Mapping[str, Path], tmp_path: Path) -> None:
    assert refusal(source, tmp_path / "out", "Counter", TorchInput("x", "float32", ("n", 3)), example={"n": 2}) == (
        "error: wanc_test_models:Counter: forward changes count, which the module keeps\n"
        "hint: a bundle keeps nothing between runs: take it as an input, and return it as an output"
    )


def test_an_input_too_many(source: Mapping[str, Path], tmp_path: Path) -> None:
    inputs = [TorchInput(name, "float32", (4,)) for name in ("x", "y", "z")]
    first, *_ = refusal(source, tmp_path / "out", "OneInput", *inputs).splitlines()
    assert first == "error: torch cannot trace wanc_test_models:OneInput"


def test_an_input_that_changes_nothing_stays(source: Mapping[str, Path], tmp_path: Path) -> None:
    inputs = [TorchInput(name, "float32", ("tokens",)) for name in ("x", "y")]
    graph = export(source, tmp_path / "out", "OneInput", *inputs).components["model"].graphs["main"]
    assert [entry.name for entry in graph.inputs] == ["x", "y"]
    assert [(entry.name, entry.shape) for entry in graph.outputs] == [("output_0", ("tokens",))]


def test_other_outputs_than_named(source: Mapping[str, Path], tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "out", "build", *INPUTS, outputs=("scaled",))
    assert message == "error: wanc_test_models:build: outputs names 1 of 3 results"


def test_functions_that_make_no_module(source: Mapping[str, Path], tmp_path: Path) -> None:
    line = MODELS.splitlines().index('    raise ValueError("no weights here")') + 1
    assert refusal(source, tmp_path / "out", "fails", *INPUTS) == (
        "error: wanc_test_models:fails fails\n"
        f"caused by: ValueError: no weights here (wanc_test_models.py:{line})\n"
        "hint: it is called without arguments"
    )
    assert refusal(source, tmp_path / "out1", "fails_of_a_file", *INPUTS).splitlines()[1:3] == [
        f"caused by: RuntimeError: no weights (wanc_test_models.py:{len(MODELS.splitlines()) - 3})",
        "caused by: FileNotFoundError: weights.bin",
    ]
    assert refusal(source, tmp_path / "out2", "returns_text", *INPUTS) == (
        "error: wanc_test_models:returns_text returns a str, not a torch.nn.Module"
    )
    assert refusal(source, tmp_path / "out3", "absent", *INPUTS).splitlines()[0] == (
        "error: wanc_test_models:absent fails"
    )


def test_bytecode_of_an_older_text_is_not_run(tmp_path: Path) -> None:
    """Python takes it for current where a text of the same size has the time of the older one."""
    package = tmp_path / "staleness"
    package.mkdir()
    for name, text in {"__init__.py": "", "sizes.py": "SIZE = 2\n", "build.py": STALE}.items():
        (package / name).write_text(text)
        py_compile.compile(
            str(package / name), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP
        )
    module = package / "sizes.py"
    times = module.stat()
    module.write_text("SIZE = 3\n")
    os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    made = load_module("staleness.build:make", tmp_path)
    assert made.get_parameter("weight").shape == (3, 1)


STALE = """
import torch
from staleness.sizes import SIZE

def make():
    return torch.nn.Linear(1, SIZE)
"""
