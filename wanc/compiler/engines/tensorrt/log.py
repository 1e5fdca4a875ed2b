"""What TensorRT's build log says of an engine, without a GPU: every kernel, and the memory that it takes.

With detailed profiling the builder prints one message, `Layers:`, with a line for each kernel: its kind, what it takes
and gives, and which nodes of the graph it was made of. The library has this form in version 1.7; others may have
another, in which nothing would be found: so a log without kernels is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

LAYERS = "Layers:"
FUSED_ATTENTION = "_gemm_mha"
"""What the names of kernels begin with that do all of an attention."""
PRODUCTS = ("gemm", "runtime_fusion")
"""The kinds of kernels that multiply matrices; convolutions are of the kind `correlation`."""
_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\]"
    r"(?:, Constants: \[(?P<constants>.*?)\])?, Outputs: \[(?P<outputs>.*?)\], (?:Tactic|Parameter|Stream)\w*: .*"
    r"Metadata:(?P<nodes>.*)"
)
_TENSOR = re.compile(r"\{ Name: .*?, (?:Location: \w+, )?Dimensions: \[(?P<shape>[^\]]*)\],.*?Datatype: (?P<dtype>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PROGRAM, _PROFILE = re.compile(r"_myl(\d+)_\d+$"), re.compile(r"\[profile (\d+)\]")
_MEMORY = re.compile(r"(Total Activation|Total Weights|Max Scratch) Memory: (\d+) bytes")


@dataclass(frozen=True)
class Tensor:
    """What a kernel takes or gives; a size of -1 may change, and `dtype` is TensorRT's name, such as `BFloat16`."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many there are, each size that may change counted as one."""
        count = 1
        for size in self.shape:
            count *= abs(size)
        return count


@dataclass(frozen=True)
class Kernel:
    """One kernel of one profile; `nodes` are the names of the graph's nodes that it was made of."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]
    profile: int

    @property
    def is_attention(self) -> bool:
        """Whether it does all of an attention."""
        return self.name.startswith(FUSED_ATTENTION)

    @property
    def multiplies(self) -> bool:
        """Whether it is one product of matrices."""
        return self.kind in PRODUCTS and not self.is_attention

    @property
    def operands(self) -> tuple[str, str]:
        """The types of the two sides of a product: its input, and the largest constant, or else its second input."""
        weights = sorted(self.constants, key=lambda tensor: tensor.elements)
        if len(self.inputs) > 1 and (not weights or weights[-1].elements == 1):
            weights = [self.inputs[1]]
        return (self.inputs[0].dtype if self.inputs else ""), (weights[-1].dtype if weights else "")

    @property
    def result(self) -> str:
        """The type of what it gives; empty where it gives nothing."""
        return self.outputs[0].dtype if self.outputs else ""


@dataclass(frozen=True)
class BuildLog:
    """The kernels of an engine, and bytes: of activations and scratch in its largest profile, and of weights."""

    kernels: tuple[Kernel, ...]
    activation_bytes: int
    weight_bytes: int
    scratch_bytes: int


def parse_log(messages: Iterable[str]) -> BuildLog:
    """Read the messages of one build. Raises ValueError where they hold no kernels, or not in the known form."""
    bytes_of = {"Total Activation": 0, "Total Weights": 0, "Max Scratch": 0}
    kernels: tuple[Kernel, ...] = ()
    for message in messages:
        if found := _MEMORY.search(message):
            bytes_of[found[1]] = max(bytes_of[found[1]], int(found[2]))
        if message.startswith(LAYERS):
            kernels = _kernels(message)
    if not kernels:
        raise ValueError("the build's log names no kernels")
    return BuildLog(kernels, bytes_of["Total Activation"], bytes_of["Total Weights"], bytes_of["Max Scratch"])


def _kernels(message: str) -> tuple[Kernel, ...]:
    lines = message.partition("\n\n")[0].splitlines()[1:]
    profiles = _profiles(lines)
    return tuple(_kernel(line, profiles) for line in lines if line.startswith("Name: "))


def _kernel(line: str, profiles: dict[str, int]) -> Kernel:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"the build's log has a line in an unknown form: {line[:200]}")
    inputs, constants, outputs = (_tensors(found[side] or "") for side in ("inputs", "constants", "outputs"))
    nodes, profile = tuple(_NODE.findall(found["nodes"])), _profile(line, profiles)
    return Kernel(found["name"], found["kind"], inputs, constants, outputs, nodes, profile)


def _tensors(text: str) -> tuple[Tensor, ...]:
    found = _TENSOR.finditer(text)
    return tuple(Tensor(tuple(int(size) for size in each["shape"].split(",") if size), each["dtype"]) for each in found)


def _profiles(lines: Iterable[str]) -> dict[str, int]:
    """Of each of the library's programs the profile that it is for: some kernels say it, and others do not."""
    profiles: dict[str, int] = {}
    for line in lines:
        if found := _PROFILE.search(line):
            profiles[_program(line)] = int(found[1])
    return profiles


def _profile(line: str, profiles: dict[str, int]) -> int:
    found = _PROFILE.search(line)
    return int(found[1]) if found else profiles.get(_program(line), 0)


def _program(line: str) -> str:
    found = _PROGRAM.search(line.partition(", LayerType: ")[0])
    return found[1] if found else ""
