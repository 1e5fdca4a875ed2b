"""The readers that are fuzzed, by name. Another one is a function, its seeds, and a line in `TARGETS`."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.program.graph_file import load as load_graph
from wanc.compiler.program.program import FILE, Placement, Program, ProgramComponent, ProgramGraph, Segment
from wanc.inspection.graph import describe_graph
from wanc.models.graph import Input, Output
from wanc.models.onnx_file import open_onnx
from wanc.models.weights import Weight
from wanc.recipe.load import load as load_recipe
from wanc.report.model_card import CARD, read_card
from wanc.runtime import safetensors
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.engine_file import EngineFile
from wanc.runtime.golden import named, tensor_name
from wanc.runtime.interface import Interface
from wanc.runtime.model import Model
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.strict_json import Fields, parse_object
from wanc.runtime.tables import Table
from wanc.runtime.text import Tokenizer
from wanc.runtime.video_bundle import VideoBundle

from ..runtime.test_bundle import sealed
from .onnx_seeds import onnx_seeds
from .target import Target

ROOT = Path(__file__).resolve().parents[2]
INTERFACE = Interface((Input("timestep", (1,), "build", "expert"),), (Output("blocks.0:gate", (1, 2)), Output("y", ())))


def written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def read_onnx(data: bytes, folder: Path) -> None:
    """What `wanc build` does with a model, up to the exported program."""
    written(bytes(64), folder / "w.bin")
    opened = open_onnx(written(data, folder / "m.onnx"))
    symbols = {split_dimension(size)[1] for entry in opened.inputs for size in entry.shape if isinstance(size, str)}
    out = folder / "out"
    out.mkdir()
    ExportOnnx(dict.fromkeys(symbols, 2), {}).run({"source": opened.files}, out, progress=False)
    program = Program.read(out / FILE)
    load_graph(out / str(program.components["model"].graphs["main"].file))


def inspect_onnx(data: bytes, folder: Path) -> object:
    return json.dumps(describe_graph(written(data, folder / "m.onnx")))


@functools.cache
def bundle() -> Path:
    """A small bundle, whose manifest is the seed."""
    return sealed(Path(tempfile.mkdtemp()))


def read_manifest(data: bytes, folder: Path) -> None:
    shutil.copytree(bundle(), folder / "bundle")
    written(data, folder / "bundle" / "manifest.json")
    VideoBundle.open(folder / "bundle")


def programs() -> list[bytes]:
    """A program of one graph, and a placed one with everything that a program may have."""
    tensors = (Input("x", (1, "rows"), "request", "request"),), (Output("y", (1, "2*rows"), state="x"),)
    graph = ProgramGraph("model/main.onnx", *tensors, {"rows": 2}, {"x": 0.5}, ("time",))
    component = ProgramComponent({"main": graph}, {"w": Weight("data/w.bin", 0, 64, "FLOAT", (4, 4))}, ("blocks.0",))
    engine = EngineFile("model", "main", 0, "onnxruntime", "cpu", None, "cpu", "engines/a.onnx", ("x",), ("y",))
    whole = Program(
        "text-to-video",
        Model(64, 0.875, 1000, (0.0, 1.0), (1.0, 2.5), 8, 4),
        {"model": component},
        Weight("program/e.bin", 0, 8, "BFLOAT16", (2, 2)),
        Placement(("cpu",), (Segment("model", 0, 0, 1, "cpu"),)),
        (engine,),
    )
    plain = Program("graph", None, {"model": component}, None)
    return [json.dumps(program.as_json()).encode() for program in (plain, whole)]


def read_program(data: bytes, folder: Path) -> object:
    return Program.read(written(data, folder / FILE))


def read_safetensors(data: bytes, folder: Path) -> None:
    tensors = SafetensorsFile(written(data, folder / "t.safetensors"))
    for name in tensors:
        tensors[name].tobytes()


def tensors_of(component: str, graph: str, rows: int) -> bytes:
    arrays = {
        "timestep": np.zeros((rows, 1), np.float32),
        "blocks.0:gate": np.ones((rows, 1, 2), np.float16),
        "y": np.arange(rows, dtype=np.int64),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.safetensors"
        safetensors.write(path, {tensor_name(component, graph, name): array for name, array in arrays.items()})
        return path.read_bytes()


def read_golden(data: bytes, folder: Path) -> None:
    if data[:1] == b"{":
        Fields(parse_object(data, where="tolerances.json").values, "tolerances.json").number("denoiser/time")
        return
    path = written(data, folder / "t.safetensors")
    named(SafetensorsFile(path), "denoiser", "time")
    Table(path, "denoiser", "time", INTERFACE).find({"timestep": np.zeros(1, np.float32)})


def read_tokenizer(data: bytes, folder: Path) -> None:
    written(data, folder / "tokenizer.json")
    Tokenizer.open(folder, 16).encode("A red circle moves to the left. 红色的圆")


def tokenizers() -> list[bytes]:
    """tiny-wan's, and the same with few pieces, of which more is something else."""
    data = (ROOT / "models/tiny-wan/tokenizer/tokenizer.json").read_bytes()
    small = json.loads(data)
    small["model"]["vocab"] = small["model"]["vocab"][:12]
    return [data, json.dumps(small).encode()]


def read_recipe(data: bytes, folder: Path) -> object:
    return load_recipe(written(data, folder / "r.yaml"))


def read_model_card(data: bytes, folder: Path) -> object:
    """Whatever is wrong with a card is told, and no failure."""
    written(data, folder / CARD)
    card = read_card(folder)
    assert card.detector is None or not card.notes
    return card


def cards() -> list[bytes]:
    """tiny-wan's front matter, and one with all that others write there."""
    own = (ROOT / "models/tiny-wan" / CARD).read_bytes()[:400]
    return [
        own,
        b"---\nlicense: apache-2.0\ntags: [a, {b: c}]\nwanc: {detector: another}\nmodel-index:\n- name: x\n---\n# x\n",
    ]


def files(*names: str) -> Callable[[], list[bytes]]:
    return lambda: [(ROOT / name).read_bytes() for name in names]


TOLERANCES = b'{"denoiser/time": 0.001, "x/y": 1}'
RECIPES = ("tiny-wan.yaml", "tiny-wan-int8.yaml", "wan2.1-t2v-1.3b.yaml", "wan2.2-t2v-a14b.yaml")
TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("onnx", onnx_seeds, read_onnx),
        Target("inspect", onnx_seeds, inspect_onnx),
        Target("manifest", lambda: [(bundle() / "manifest.json").read_bytes()], read_manifest),
        Target("program", programs, read_program),
        Target("safetensors", lambda: [tensors_of("model", "main", rows) for rows in (0, 1, 5)], read_safetensors),
        Target("recipe", files(*(f"recipes/{name}" for name in RECIPES)), read_recipe),
        Target("tokenizer", tokenizers, read_tokenizer),
        Target("card", cards, read_model_card),
        Target("golden", lambda: [tensors_of("denoiser", "time", 3), TOLERANCES], read_golden),
    )
}
