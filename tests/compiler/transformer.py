"""A small denoiser written as text: modulated by a time, attending to itself and to a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.host.chain import Chain
from wanc.compiler.host.sample_states import Sample
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import ProgramComponent, ProgramGraph, weight_files
from wanc.compiler.program.quant_table import QuantTable
from wanc.compiler.quantize.component import Keep, Samples, quantize_component
from wanc.compiler.quantize.decisions import Settings
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.runtime.denoise import GRAPH
from wanc.words import AttentionFormat, Observer

from .fusing import files_of
from .passes.builder import parse, run
from .passes.hoisting import EVERY, PROMPT, SIZES, STEP, TIMESTEP, interface
from .weighted import Array, Weighted, weighted

NAME = "denoiser_high"
BLOCKS = 2
WIDTH, TEXT, LATENT = 32, 24, 16
HIDDEN = 160
"""More than a group of int4 has."""
SAMPLES = 6
KEEP = ("proj_out", "time")
HEADS = "q_num_heads = 4, kv_num_heads = 4"

WEIGHTS: dict[str, str] = {}
"""Every weight's type, by canonical name; filled while the text is written."""


FORMS = {
    "cast, turned": "{0}_f = Cast <to = 1> ({1})  {0}_w = Transpose <perm = [1, 0]> ({0}_f)",
    "turned, cast": "{0}_t = Transpose <perm = [1, 0]> ({1})  {0}_w = Cast <to = 1> ({0}_t)",
    "as it is": "{0}_w = Cast <to = 1> ({1})",
}
"""How a weight gets to be float32 [in, out]; the last of them is stored so."""


def _linear(
    given: str, name: str, out: int, into: int, result: str, *, bias: bool = True, form: str = "cast, turned"
) -> str:
    WEIGHTS[f"{name}.weight"] = f"bfloat16[{into}, {out}]" if form == "as it is" else f"bfloat16[{out}, {into}]"
    body = FORMS[form].format(result, f"{name}.weight")
    if not bias:
        return f"{body}  {result} = MatMul ({given}, {result}_w)"
    WEIGHTS[f"{name}.bias"] = f"bfloat16[{out}]"
    return (
        f"{body}  {result}_p = MatMul ({given}, {result}_w)  {result}_b = Cast <to = 1> ({name}.bias)"
        f"  {result} = Add ({result}_p, {result}_b)"
    )


def _block(index: int) -> str:
    at, own, taken = f"blocks.{index}", f"b{index}_", f"x{index}"
    WEIGHTS[f"{at}.scale_shift_table"] = f"float[2, {WIDTH}]"
    WEIGHTS[f"{at}.norm2.weight"] = WEIGHTS[f"{at}.norm2.bias"] = WEIGHTS[f"{at}.norm3.weight"] = f"float[{WIDTH}]"
    lines = [
        f"{own}mod = Add (modulation, {at}.scale_shift_table)",
        f"{own}rows, {own}shifts = Split <axis = 0, num_outputs = 2> ({own}mod)",
        f"{own}row = Reshape ({own}rows, flat)  {own}scale = Add ({own}row, one)",
        f"{own}shift = Reshape ({own}shifts, flat)",
        f"{own}a = LayerNormalization <axis = -1> ({taken}, {own}scale, {own}shift)",
        *(_linear(f"{own}a", f"{at}.attn1.to_{part}", WIDTH, WIDTH, f"{own}{part}") for part in "qkv"),
        f"{own}o = Attention <{HEADS}> ({own}q, {own}k, {own}v)",
        _linear(f"{own}o", f"{at}.attn1.to_out", WIDTH, WIDTH, f"{own}out"),
        f"{own}r = Add ({taken}, {own}out)",
        f"{own}c = LayerNormalization <axis = -1> ({own}r, {at}.norm2.weight, {at}.norm2.bias)",
        _linear(f"{own}c", f"{at}.attn2.to_q", WIDTH, WIDTH, f"{own}cq", form="turned, cast"),
        _linear("text", f"{at}.attn2.to_k", WIDTH, TEXT, f"{own}ck"),
        _linear("text", f"{at}.attn2.to_v", WIDTH, TEXT, f"{own}cv"),
        f"{own}co = Attention <{HEADS}> ({own}cq, {own}ck, {own}cv)",
        _linear(f"{own}co", f"{at}.attn2.to_out", WIDTH, WIDTH, f"{own}cout"),
        f"{own}s = Add ({own}r, {own}cout)",
        f"{own}n = RMSNormalization <axis = -1> ({own}s, {at}.norm3.weight)",
        _linear(f"{own}n", f"{at}.ffn.up", HIDDEN, WIDTH, f"{own}up", form="as it is"),
        f"{own}g = Gelu ({own}up)",
        _linear(f"{own}g", f"{at}.ffn.down", WIDTH, HIDDEN, f"{own}down", bias=False),
        f"x{index + 1} = Add ({own}s, {own}down)",
    ]
    return "  ".join(lines)


def _text() -> str:
    lines = [
        "one = Constant <value_float = 1.0> ()  flat = Constant <value_ints = [-1]> ()",
        f"row = Constant <value_ints = [1, 1]> ()  pair = Constant <value_ints = [2, {WIDTH}]> ()",
        "t = Reshape (timestep, row)",
        _linear("t", "time.up", WIDTH, 1, "embedded"),
        "gate = Sigmoid (embedded)  active = Mul (embedded, gate)",
        _linear("active", "time.proj", 2 * WIDTH, WIDTH, "modulations"),
        "modulation = Reshape (modulations, pair)",
        _linear("latents", "proj_in", WIDTH, LATENT, "x0", form="as it is"),
        *map(_block, range(BLOCKS)),
        _linear(f"x{BLOCKS}", "proj_out", LATENT, WIDTH, "velocity"),
    ]
    body = "  ".join(lines)
    header = f"float[1, n, {LATENT}] latents, float[1] timestep, float[1, m, {TEXT}] text"
    weights = ", ".join(f"{kind} {name}" for name, kind in WEIGHTS.items())
    return f"g ({header}, {weights}) => (float[1, n, {LATENT}] velocity) {{ {body} }}"


def _trained(name: str, values: Array) -> Array:
    """Linears keep the size of what they are given; a few channels of norms are large, as in trained models."""
    if name.endswith(".weight") and values.ndim == 2:
        return values.astype(np.float32) / np.sqrt(min(values.shape))
    if "norm" in name or "table" in name:
        spread = np.where(np.arange(values.shape[-1]) % 8 == 0, 6.0, 0.5)
        return values * spread
    return values.astype(np.float32) * 0.1


@dataclass(frozen=True)
class Denoiser:
    """A component as a program has it: its graph on disk, and what its weights lie in."""

    component: ProgramComponent
    graphs: Files
    weights: Files

    @property
    def files(self) -> ComponentFiles:
        return ComponentFiles(NAME, self.component, self.graphs, self.weights)

    def parts(self) -> dict[str, ir.Model]:
        """Its graphs as they are lowered: cut by binding time."""
        return {name: entry.model for name, entry in lowerable(self.files).items()}

    def whole(self) -> ir.Model:
        return self.files.model(GRAPH)

    def velocity(self, feeds: Mapping[str, Array], folder: Path) -> Array:
        """What it computes, executed piece after piece."""
        folder.mkdir()
        chain = Chain(self.whole(), self.weights, folder, FiniteCheck(NAME))
        (outputs,) = chain.run([feeds])
        return outputs["velocity"]

    def followed_by(self, component: ProgramComponent, out: Path) -> Denoiser:
        """What a stage has made of it below `out`."""
        files = files_of(out)
        return Denoiser(component, files, {**self.weights, **weight_files(files, {})})


@dataclass(frozen=True)
class FloatDenoiser(Denoiser):
    """With what it was written as."""

    uncut: Weighted

    def expected(self, feeds: Mapping[str, Array]) -> Array:
        return run(self.uncut.filled, feeds)["velocity"]


def make(folder: Path, change: Callable[[str, Array], Array] = _trained) -> FloatDenoiser:
    text = _text()
    uncut = weighted(parse(text, *WEIGHTS), folder, change)
    inputs = {"latents": STEP, "timestep": TIMESTEP, "text": PROMPT}
    (folder / NAME).mkdir()
    file = f"{NAME}/{GRAPH}.onnx"
    save(uncut.model, folder / file)
    declared, outputs = interface(uncut.model, inputs)
    graph = ProgramGraph(file, declared, outputs, SIZES, hoist=EVERY)
    component = ProgramComponent({GRAPH: graph}, uncut.weights, tuple(f"blocks.{index}" for index in range(BLOCKS)))
    return FloatDenoiser(component, files_of(folder), uncut.files, uncut)


def quantised(
    denoiser: Denoiser,
    out: Path,
    scheme: str = "int8",
    alpha: str | float = "search",
    keep: tuple[str, ...] | Keep = KEEP,
    given: Sequence[Sample] | None = None,
    name: str = NAME,
    observer: Observer = "mse",
    decisions: Path | None = None,
    kept: Path | None = None,
    attention: AttentionFormat = "float",
) -> tuple[ProgramComponent, QuantTable]:
    """Quantise it below `out`, on samples of its own unless others are given; `kept` is where it goes on from."""
    given = samples() if given is None else given
    with TemporaryDirectory() as nothing:
        return quantize_component(
            replace(denoiser.files, name=name),
            Samples(given, [1.0] * len(given)),
            Settings(scheme, observer, alpha, attention),
            keep if isinstance(keep, Keep) else Keep(keep),
            out,
            kept or Path(nothing),
            decisions=decisions,
            progress=False,
        )


def samples(numbers: Iterable[int] = range(SAMPLES)) -> list[Sample]:
    return [lambda number=number: sample(number) for number in numbers]


def sample(number: int) -> dict[str, Array]:
    """One execution; sizes and timesteps alternate."""
    random = np.random.default_rng(number)
    return {
        "latents": random.normal(size=(1, (12, 20)[number % 2], LATENT)).astype(np.float32),
        "timestep": np.array([1 - 0.1 * number], np.float32),
        "text": random.normal(size=(1, 5, TEXT)).astype(np.float32),
    }
