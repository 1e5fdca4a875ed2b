from __future__ import annotations

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

from .conftest import AssertRefused, Write

FILE = "it has to be letters, digits, '_' and '-' with single dots between them, beginning with a letter or a digit"
PEP_440 = "it has to be a version of PEP 440, such as 1.4.0 or 1.4.0rc1"

# name: (what stands in the recipe, what replaces it, line:column, message, hint)
WRONG: dict[str, tuple[str, str, str, str, str]] = {
    # keys
    "misspelt key": ("steps: 20", "stesp: 20", "17:3", "sampling has no key stesp", "did you mean steps?"),
    "capital key": ("steps: 20", "Steps: 20", "17:3", "sampling has no key Steps", "did you mean steps?"),
    "name of another project": (
        "guidance: {",
        "guidance_scale: {",
        "19:3",
        "sampling has no key guidance_scale",
        "did you mean guidance?",
    ),
    "key of a section at the top": (
        "wanc: 1",
        "wanc: 1\nsteps: 8",
        "4:1",
        "a recipe has no key steps",
        "did you mean sampling.steps?",
    ),
    "strange key": (
        "{name: 64p,",
        "{qqq: 1, name: 64p,",
        "12:6",
        "shapes.0 has no key qqq",
        "its keys are name, height, width, frames",
    ),
    "key like a planned one": (
        "wanc: 1",
        "wanc: 1\nruntime: {ofload: {experts: swap}}",
        "4:11",
        "runtime has no key ofload",
        "did you mean offload? (it is not built yet)",
    ),
    "misspelt extends": (
        "wanc: 1",
        "wanc: 1\nextend: a.yaml",
        "4:1",
        "a recipe has no key extend",
        "did you mean extends?",
    ),
    # head
    "missing format": ("wanc: 1\n", "", "3:1", "wanc is missing", "The version of the recipe format."),
    "later format": ("wanc: 1", "wanc: 2", "3:7", "wanc cannot be 2", "it can be 1"),
    "format as true": (
        "wanc: 1",
        "wanc: true",
        "3:7",
        "wanc: it has to be a whole number",
        "1 is the only value today",
    ),
    "format as float": (
        "wanc: 1",
        "wanc: 1.0",
        "3:7",
        "wanc: it has to be a whole number",
        "1 is the only value today",
    ),
    "name as number": (
        "name: tiny-wan",
        "name: 480",
        "4:7",
        "name has to be text, not the number 480",
        "put it in quotes",
    ),
    "name with a slash": ("name: tiny-wan", "name: a/b", "4:7", "name cannot be a/b", FILE),
    "name of dots": ("name: tiny-wan", "name: a..b", "4:7", "name cannot be a..b", FILE),
    "hidden name": ("name: tiny-wan", "name: .a", "4:7", "name cannot be .a", FILE),
    "name with a line end": ("name: tiny-wan", 'name: "a\\n"', "4:7", 'name cannot be "a\\n"', f"{FILE}; write a"),
    "long name": (
        "name: tiny-wan",
        f"name: {'a' * 65}",
        "4:7",
        f"name has to be at most 64 characters long, not the text {'a' * 59}…",
        "The bundle's name.",
    ),
    "version as number": (
        "version: 0.1.0",
        "version: 1.10",
        "5:10",
        "version has to be text, not the number 1.1",
        "put it in quotes",
    ),
    "version in words": ("version: 0.1.0", "version: 1.0-final", "5:10", "version cannot be 1.0-final", PEP_440),
    "local version": ("version: 0.1.0", "version: 1.0+a", "5:10", "version cannot be 1.0+a", PEP_440),
    # model
    "model as text": (
        "model:\n  source: ../models/tiny-wan",
        "model: ../models/tiny-wan",
        "7:8",
        "model has to be a mapping, not the text ../models/tiny-wan",
        "write {source: ../models/tiny-wan}",
    ),
    "no source": (
        "  source: ../models/tiny-wan",
        "  components: [vae_decoder]",
        "8:3",
        "model: none of source, onnx and torch is given",
        "give the folder of a Wan checkpoint as source, an ONNX file as onnx, or a function as torch",
    ),
    "empty source": (
        "source: ../models/tiny-wan",
        'source: ""',
        "8:11",
        "model.source: the path is empty",
        "name a file or a folder",
    ),
    "source as number": (
        "source: ../models/tiny-wan",
        "source: 1",
        "8:11",
        "model.source has to be text, not the number 1",
        "put it in quotes",
    ),
    "unknown component": (
        "  source: ../models/tiny-wan",
        "  source: ../models/tiny-wan\n  components: [denoiser]",
        "9:16",
        "model.components.0 cannot be denoiser",
        "did you mean denoiser_low?",
    ),
    "component twice": (
        "  source: ../models/tiny-wan",
        "  source: ../models/tiny-wan\n  components: [vae_decoder, vae_decoder]",
        "9:29",
        "model.components.1: vae_decoder stands twice",
        "name each once",
    ),
    "no components": (
        "  source: ../models/tiny-wan",
        "  source: ../models/tiny-wan\n  components: []",
        "9:15",
        "model.components has to be a list of at least 1, not an empty list",
        "The parts of a checkpoint to build; all of them unless named.",
    ),
    # what a model that makes videos needs; the two are checked in this order, and after everything else
    "no shapes": (
        "shapes:\n  - {name: 64p, height: 64, width: 64, frames: 17}\n"
        "  - {name: 96p-wide, height: 64, width: 96, frames: 17}\n",
        "",
        "3:1",
        "shapes is missing",
        "a model given as source makes videos; `wanc recipe new` shows how",
    ),
    "no sampling": (
        "sampling:\n  solver: unipc\n  steps: 20\n  shift: 5.0\n  guidance: {high: 4.0, low: 3.0}\n"
        "  boundary: 0.875 # the high-noise expert works at timesteps of 875 and above\n",
        "",
        "3:1",
        "sampling is missing",
        "a model given as source makes videos; `wanc recipe new` shows how",
    ),
    # precision, and which rewrites are made
    "bf16 without an engine for it": (
        "wanc: 1",
        "wanc: 1\nprecision: {compute: bf16}",
        "4:22",
        "precision.compute: onnxruntime has no bf16 on CPUs",
        "set engine.kind to openvino, or leave precision.compute at fp32",
    ),
    "unknown island": (
        "wanc: 1",
        "wanc: 1\nprecision: {islands: [norm, norms]}",
        "4:29",
        "precision.islands.1 cannot be norms",
        "did you mean norm?",
    ),
    "island twice": (
        "wanc: 1",
        "wanc: 1\nprecision: {islands: [norm, norm]}",
        "4:29",
        "precision.islands.1: norm stands twice",
        "name each once",
    ),
    "unknown pass": (
        "wanc: 1",
        "wanc: 1\nfuse: {passes: [opset, atention]}",
        "4:24",
        "fuse.passes.1 cannot be atention",
        "did you mean attention?",
    ),
    "pass twice": (
        "wanc: 1",
        "wanc: 1\nfuse: {passes: [opset, opset]}",
        "4:24",
        "fuse.passes.1: opset stands twice",
        "name each once",
    ),
    "passes as text": (
        "wanc: 1",
        "wanc: 1\nfuse: {passes: all}",
        "4:16",
        "fuse.passes has to be a list, not the text all",
        "The passes by name, in any order, as `wanc passes` lists them; default is all that pay on every engine.",
    ),
    "unknown pass to skip": (
        "wanc: 1",
        "wanc: 1\nfuse: {skip: [rop]}",
        "4:15",
        "fuse.skip.0 cannot be rop",
        "did you mean rope?",
    ),
    "unknown part": (
        "wanc: 1",
        "wanc: 1\nfuse: {hoist: [time, text]}",
        "4:22",
        "fuse.hoist.1 cannot be text",
        "it can be time, shape, request or chunk",
    ),
    "part twice": (
        "wanc: 1",
        "wanc: 1\nfuse: {hoist: [time, shape, time]}",
        "4:29",
        "fuse.hoist.2: time stands twice",
        "name each once",
    ),
    "unknown operator that may be unfused": (
        "wanc: 1",
        "wanc: 1\nengine: {allow_unfused: [MatMul]}",
        "4:26",
        "engine.allow_unfused.0 cannot be MatMul",
        "it can be Attention, RMSNormalization or RotaryEmbedding",
    ),
    # the rest
    "empty list of devices": (
        "wanc: 1",
        "wanc: 1\npartition: {devices: []}",
        "4:22",
        "partition.devices has to be a list of at least 1, not an empty list",
        "What the machine of the deployment has.",
    ),
    "no device": (
        "wanc: 1",
        "wanc: 1\npartition: {devices: [{kind: cpu, count: 0}]}",
        "4:42",
        "partition.devices.0.count has to be at least 1, not the number 0",
        "How many of them.",
    ),
    "unknown engine": (
        "wanc: 1",
        "wanc: 1\nengine: {kind: tensort}",
        "4:16",
        "engine.kind cannot be tensort",
        "did you mean tensorrt?",
    ),
    "target twice": (
        "wanc: 1",
        "wanc: 1\nengine: {targets: [cpu, cpu]}",
        "4:25",
        "engine.targets.1: cpu stands twice",
        "name each once",
    ),
    "negative threads": (
        "wanc: 1",
        "wanc: 1\nruntime: {threads: -1}",
        "4:20",
        "runtime.threads has to be at least 0, not the number -1",
        "CPU threads; 0 is all cores.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(case: str, assert_refused: AssertRefused) -> None:
    assert_refused(*WRONG[case])


def test_several_faults_are_reported_together(write: Write, tiny: str) -> None:
    text = tiny.replace("steps: 20", "stesp: 20").replace("height: 64, width: 64", "height: 65, width: 64")
    text = text.replace("name: tiny-wan\n", "").replace("fps", "fsp")
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", text))
    first, *others = caught.value.message.splitlines()
    assert first.startswith("shapes.0.height: 65 is not a multiple of 16")
    assert others == [
        "  also recipe.yaml:16:3: sampling has no key stesp (did you mean steps?)",
        "  also recipe.yaml:3:1: name is missing (The bundle's name.)",
    ]
    assert caught.value.where == "recipe.yaml:11:25"
    assert caught.value.hint == "the nearest are 64 and 80"


def test_many_faults_are_cut_short(write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny + "".join(f"key{n}: 1\n" for n in range(100))))
    lines = caught.value.message.splitlines()
    assert len(lines) == 7
    assert lines[-1] == "  and more"
