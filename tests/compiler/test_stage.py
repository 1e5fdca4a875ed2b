"""Keys of stages: everything that can change a result is in the key, and nothing else."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import pkgutil
import platform
from collections.abc import Mapping
from inspect import isabstract
from pathlib import Path
from typing import Any

import pytest

import wanc.compiler
from wanc.artifacts.canonical import key_of
from wanc.artifacts.records import Blob
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.seal import Seal
from wanc.compiler.bundle.tables import Tables
from wanc.compiler.check.stage import CheckBuild
from wanc.compiler.check.wan_source import WanOrigin
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.stage import Compile, EngineStage
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.export.torch_module import ExportTorch, TorchInput
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.partition import Partition
from wanc.compiler.planner.survey_stage import SurveyComponent
from wanc.compiler.program.program import Placement, Segment
from wanc.compiler.quantize.calibrate import Calibrate
from wanc.compiler.quantize.decoder import QuantizeDecoder
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.quantize.texts import Texts
from wanc.compiler.quantize.train import Train
from wanc.compiler.reference.stage import SampleReference
from wanc.compiler.resolve import Resolved
from wanc.compiler.stages import stage as stage_module
from wanc.compiler.stages.code_version import code_version
from wanc.compiler.stages.processor import processor
from wanc.compiler.stages.stage import Stage, Tree, tool_version
from wanc.compiler.trajectory import Trajectory
from wanc.models.source import ModelSource
from wanc.recipe.schema import Recipe
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.kvcache import KeyValueWindow

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"

ENGINES: tuple[Engine, Engine] = (OpenVinoEngine("bf16", ("residual", "norm")), OnnxRuntimeEngine())
SEGMENT = Segment("denoiser_high", 0, 0, 2, "cpu")
TRAJECTORY = Trajectory("unipc", 20, None, 4.0, 3.0, 3.0, 0.875)
FASTER = dataclasses.replace(TRAJECTORY, steps=10)
SIZE = (64, 64, 17)
CACHE = CacheFacts(1, KeyValueWindow(0, 6), "fp32")
# Every stage, with a value for each field and another one.
FIELDS: dict[type[Stage], dict[str, tuple[Any, Any]]] = {
    Export: {
        "components": (("text_encoder", "vae_decoder"), ("text_encoder",)),
        "cache": (None, "fp32"),
        "positions": ("absolute", "relative"),
    },
    ExportOnnx: {"example": ({"rows": 2}, {"rows": 3}), "values": ({}, {"rate": 16000.0})},
    ExportTorch: {
        "factory": ("package:build", "package:build_other"),
        "inputs": ((TorchInput("x", "float32", (1, "rows")),), (TorchInput("x", "float16", (1, "rows")),)),
        "outputs": (None, ("y",)),
        "example": ({"rows": 2}, {"rows": 3}),
        "values": ({}, {"x": 1.0}),
        "is_checked": (False, True),
    },
    Fuse: {
        "passes": (None, ("fold", "rope")),
        "skip": ((), ("rope",)),
        "hoist": (("time", "shape"), ("time",)),
    },
    Texts: {"prompts": (("a", ""), ("b", "")), "tokenizer": ("tokenizer.json", "other/tokenizer.json")},
    QuantizeTextEncoder: {
        "prompts": (("a", ""), ("b", "")),
        "tokenizer": ("tokenizer.json", "other/tokenizer.json"),
        "scheme": ("int8", "int8-weight"),
        "observer": ("absmax", "mse"),
        "alpha": ("search", 0.5),
        "keep": (("*.wo",), ()),
        "max_drop_db": (None, 0.5),
        "int8_share": (None, 0.95),
        "zeros": (None, ("encoder.final_layer_norm.weight",)),
    },
    QuantizeDecoder: {
        "scheme": ("int8", "int8-weight"),
        "observer": ("absmax", "mse"),
        "keep": (("decoder.conv_out",), ()),
        "zeros": (None, ("decoder.norm_out.gamma",)),
    },
    SampleReference: {
        "components": (("text_encoder", "vae_decoder"), ("text_encoder",)),
        "trajectory": (TRAJECTORY, FASTER),
        "size": (SIZE, (64, 96, 17)),
        "clips": ((("a", 0),), (("a", 1),)),
        "negative_prompt": ("", "b"),
        "draws": (1, 2),
        "tokenizer": ("tokenizer.json", "other/tokenizer.json"),
        "cache": (None, CacheFacts(1, KeyValueWindow(0, 6), "fp32")),
    },
    Calibrate: {
        "component": ("denoiser_high", "denoiser_low"),
        "trajectory": (TRAJECTORY, FASTER),
        "shapes": ((SIZE,), (SIZE, SIZE)),
        "clips": (16, 8),
        "timestep_bins": (4, 2),
        "seed": (0, 1),
        "cache": (None, CACHE),
    },
    Quantize: {
        "component": ("denoiser_high", "denoiser_low"),
        "scheme": ("int8", "fp8"),
        "observer": ("absmax", "mse"),
        "alpha": ("search", 0.5),
        "keep": (("proj_out",), ()),
        "max_drop_db": (None, 0.5),
        "int8_share": (None, 0.95),
        "trajectory": (TRAJECTORY, FASTER),
        "is_trained": (False, True),
        "zeros": (None, ("proj_out.weight",)),
        "attention": ("float", "fp8"),
        "cache": (None, CACHE),
    },
    Train: {
        "component": ("denoiser_high", "denoiser_low"),
        "experts": (("denoiser_high", "denoiser_low"), ("denoiser_high",)),
        "scheme": ("int8", "int4-weight"),
        "keep": (("proj_out",), ()),
        "trajectory": (TRAJECTORY, FASTER),
        "shape": (SIZE, (64, 96, 17)),
        "seed": (0, 1),
        "learning_rate": (5e-5, 3e-4),
        "rounds": (4, 5),
        "requests": (384, 32),
        "validation": (12, 4),
        "cache": (None, CACHE),
    },
    Partition: {
        "cut": ("none", "blocks"),
        "device": ("cpu", "other"),
        "planned": (None, Placement(("cpu",), (SEGMENT,))),
    },
    SurveyComponent: {
        "component": ("vae_decoder", "text_encoder"),
        "fuse": (Fuse(None, (), ("time",)), Fuse(None, ("rope",), ("time",))),
        "cache": (None, "int8"),
        "positions": ("absolute", "relative"),
    },
    Compile: {
        "engine": ENGINES,
        "segment": (SEGMENT, dataclasses.replace(SEGMENT, stop=1)),
        "target": ("cpu", "cuda"),
        "allow_not_finite": ((), ("mask",)),
        "zeros": (None, ("proj_out.weight",)),
        "requests": ((), ({"mask": ((1, 1, 1), (1, 64, 64))},)),
    },
    Assemble: {
        "engine": ENGINES,
        "tokenizer": ("tokenizer.json", None),
        "allow_not_finite": ((), ("mask",)),
        "allow_unfused": ((), ("Attention",)),
        "quantized": ((), ("denoiser_high",)),
        "emulate": (False, True),
        "zeros": (None, ("proj_out.weight",)),
    },
    Tables: {
        "engine": ENGINES,
        "timesteps": ((999.0, 500.0), (999.0,)),
        "boundary": (0.875, None),
        "everywhere": ((), (0.0,)),
    },
    CheckBuild: {
        "engine": ENGINES,
        "origin": (WanOrigin(("text_encoder",)), WanOrigin(("vae_decoder",))),
        "fuse": (Fuse(None, (), ()), Fuse(None, ("rope",), ())),
        "allow_not_finite": ((), ("mask",)),
        "quantized": ((), ("denoiser_high",)),
    },
}


def every_stage() -> list[type[Stage]]:
    for module in pkgutil.walk_packages(wanc.compiler.__path__, "wanc.compiler."):
        importlib.import_module(module.name)
    found, waiting = [], [Stage]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        found += [child for child in children if child.__module__.startswith("wanc.") and not isabstract(child)]
    return found


def as_stored(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_stored(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [as_stored(item) for item in value] if isinstance(value, tuple) else value


def example(kind: type[Stage], /, **changes: Any) -> Stage:
    return kind(**({name: values[0] for name, values in FIELDS[kind].items()} | changes))


def tree(digests: Mapping[str, str]) -> Tree:
    def locate() -> Mapping[str, Path]:
        raise AssertionError("a key needs no file")

    return Tree(digests, locate)


INPUTS = {"source": tree({"a.json": DIGEST, "b.bin": DIGEST}), "program": tree({"program.json": DIGEST})}


def test_this_file_knows_every_stage_and_every_field() -> None:
    """A stage or a field added later has to be added above, and so is tested to be in the key."""
    stages = every_stage()
    assert set(stages) == FIELDS.keys()
    for kind in stages:
        assert {field.name for field in dataclasses.fields(kind)} == FIELDS[kind].keys()
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            example(kind).__setattr__(next(iter(FIELDS[kind])), None)


def test_stages_of_one_name_have_keys_of_their_own() -> None:
    """There is one way to export for each kind of model; equal fields must not make them one."""
    keys = {key_of(example(kind).key_document(INPUTS) | {"parameters": {}}) for kind in every_stage()}
    assert len(keys) == len(every_stage())
    quantising = {"texts", "calibrate", "quantize", "train"}
    assert {kind.name for kind in every_stage()} == {
        "export", "fuse", *quantising, "partition", "compile", "engine", "tables", "check", "survey", "reference",
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in FIELDS.items() for field in fields])
def test_every_field_is_in_the_key(kind: type[Stage], field: str) -> None:
    first, second = FIELDS[kind][field]
    one, same, other = (example(kind, **{field: value}).key_document(INPUTS) for value in (first, first, second))
    assert key_of(one) == key_of(same)
    assert key_of(one) != key_of(other)
    assert one["parameters"].keys() == FIELDS[kind].keys()


@pytest.mark.parametrize("kind", [kind for kind in FIELDS if issubclass(kind, EngineStage)])
@pytest.mark.parametrize(
    "other",
    [OpenVinoEngine("fp32", ("residual", "norm")), OpenVinoEngine("bf16", ("residual",)), *ENGINES[1:]],
)
def test_what_is_chosen_of_an_engine_is_in_the_key(kind: type[Stage], other: Engine) -> None:
    assert key_of(example(kind, engine=other).key_document(INPUTS)) != key_of(example(kind).key_document(INPUTS))


@pytest.mark.parametrize("kind", [kind for kind in FIELDS if issubclass(kind, EngineStage)])
def test_engines_are_told_apart_by_code_and_package(kind: type[Stage]) -> None:
    one = example(kind, engine=OnnxRuntimeEngine()).key_document(INPUTS)
    assert (one["engine"], one["engine_code"]) == ("onnxruntime", code_version(OnnxRuntimeEngine.__module__))
    assert one["tools"]["onnxruntime"] == importlib.metadata.version("onnxruntime")
    other = example(kind).key_document(INPUTS)
    assert (other["engine"], other["engine_code"]) == ("openvino", code_version(OpenVinoEngine.__module__))
    assert other["tools"]["openvino"] == importlib.metadata.version("openvino")
    assert one["engine_code"] != other["engine_code"]


@pytest.mark.parametrize("kind", FIELDS)
def test_the_document_names_all_that_the_result_depends_on(kind: type[Stage]) -> None:
    document = example(kind).key_document(INPUTS)
    engine = {}
    tools = [*kind.tools]
    if issubclass(kind, EngineStage):
        engine = {"engine": "openvino", "engine_code": code_version(OpenVinoEngine.__module__)}
        tools += OpenVinoEngine.tools
    origin = {}
    if kind is CheckBuild:
        origin = {"origin": "wan", "origin_code": code_version(WanOrigin.__module__)}
        tools += WanOrigin.tools
    assert document == {
        "schema": 1,
        "stage": kind.name,
        "code": code_version(kind.__module__),
        "parameters": {name: as_stored(values[0]) for name, values in FIELDS[kind].items()},
        "inputs": {"source": INPUTS["source"].digest, "program": INPUTS["program"].digest},
        "tools": {tool: importlib.metadata.version(tool) for tool in tools},
        "platform": f"{platform.system()}-{platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": processor(),
        **engine,
        **origin,
    }


@pytest.mark.parametrize(
    "digests",
    [
        {"a.json": OTHER, "b.bin": DIGEST},
        {"a.json": DIGEST},
        {"a.json": DIGEST, "c.bin": DIGEST},
        {"a.json": DIGEST, "b.bin": DIGEST, "c.bin": DIGEST},
    ],
)
def test_names_and_contents_of_inputs_are_in_the_key(digests: dict[str, str]) -> None:
    before = key_of(example(Compile).key_document(INPUTS))
    assert key_of(example(Compile).key_document({**INPUTS, "source": tree(digests)})) != before


def test_the_order_of_inputs_is_not_in_the_key() -> None:
    turned = {
        "program": INPUTS["program"],
        "source": tree(dict(reversed(INPUTS["source"].digests.items()))),
    }
    stage = example(Compile)
    assert key_of(stage.key_document(turned)) == key_of(stage.key_document(INPUTS))


def test_the_place_of_inputs_is_not_in_the_key() -> None:
    one, two = (
        Tree({"a": DIGEST}, lambda: {"a": Path("/one/a")}),
        Tree({"a": DIGEST}, lambda: {"a": Path("/two/a")}),
    )
    assert one.digest == two.digest


@pytest.mark.parametrize("tool", Export.tools)
def test_the_versions_of_tools_are_in_the_key(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    before = key_of(example(Export).key_document(INPUTS))
    known = stage_module.installed
    monkeypatch.setattr(stage_module, "installed", lambda name: (name, "9.9") if name == tool else known(name))
    assert key_of(example(Export).key_document(INPUTS)) != before


def test_the_version_of_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: key_of(example(kind).key_document(INPUTS)) for kind in FIELDS}
    monkeypatch.setattr(stage_module, "code_version", lambda _: OTHER)
    for kind, key in before.items():
        assert key_of(example(kind).key_document(INPUTS)) != key


@pytest.mark.parametrize(("what", "other"), [("machine", "riscv64"), ("libc_ver", ("glibc", "2.17"))])
def test_the_platform_is_in_the_key(monkeypatch: pytest.MonkeyPatch, what: str, other: object) -> None:
    before = key_of(example(Compile).key_document(INPUTS))
    monkeypatch.setattr(platform, what, lambda: other)
    assert key_of(example(Compile).key_document(INPUTS)) != before


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("what", ["vendor", "instructions", "caches"])
def test_the_processor_is_in_the_key(monkeypatch: pytest.MonkeyPatch, kind: type[Stage], what: str) -> None:
    before = key_of(example(kind).key_document(INPUTS))
    monkeypatch.setattr(stage_module, "processor", lambda: {**processor(), what: "another"})
    assert key_of(example(kind).key_document(INPUTS)) != before


@pytest.mark.parametrize(
    "variable", ["OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "LC_ALL", "HOSTNAME", "WANC_STAGE_TIMEOUT"]
)
def test_variables_are_not_in_the_key(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Where they could matter, a stage's process does not have them."""
    before = key_of(example(Quantize).key_document(INPUTS))
    monkeypatch.setenv(variable, "9")
    processor.cache_clear()
    assert key_of(example(Quantize).key_document(INPUTS)) == before


def test_tool_versions() -> None:
    assert tool_version("python") == platform.python_version()
    assert tool_version("numpy") == importlib.metadata.version("numpy")


# The seal is no Stage, because its result lies outside the store; its key follows the same rule.


def sealed(destination: Path, lock: dict[str, Any], source: Tree = INPUTS["source"]) -> Seal:
    recipe = Recipe.model_construct(sampling=None)
    blobs = {name: Blob(digest, 1) for name, digest in source.digests.items()}
    return Seal(Resolved(recipe, ModelSource({}), blobs, headers={}), lock, destination)


def test_the_key_of_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    lock = {"recipe": {"name": "tiny"}, "tools": {}}
    engines, other = INPUTS["program"], tree({"program.json": OTHER})
    key = key_of(sealed(Path("/a"), lock).key_document(engines))
    assert key_of(sealed(Path("/b"), lock).key_document(engines)) == key, "the destination is not in the bundle"
    assert key_of(sealed(Path("/a"), {**lock, "tools": {"numpy": "1"}}).key_document(engines)) != key
    assert key_of(sealed(Path("/a"), lock).key_document(other)) != key
    assert key_of(sealed(Path("/a"), lock, source=other).key_document(engines)) != key
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert key_of(sealed(Path("/a"), lock).key_document(engines)) != key
