from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from wanc.errors import NotBuiltYetError, RecipeError
from wanc.recipe import Recipe, load, planned
from wanc.recipe.fields import all_paths
from wanc.recipe.schema import Guidance

Write = Callable[[str, str | bytes], Path]

MODEL_OWN_SCALES = "add a line such as `guidance: {high: 4.0, low: 3.0}`, the scales of Wan2.2-T2V-A14B"
GUIDANCE = (
    "Guidance scales, {high: for the high-noise expert, low: for the low-noise expert}; few-step models have none."
)
STEPS = "The number of denoising steps, evenly spaced before the shift."
PROFILE = "it has to be letters, digits, '_' and '-', beginning with a letter or a digit"
FILE = "it has to be letters, digits, '_' and '-' with single dots between them, beginning with a letter or a digit"
PEP_440 = "it has to be a version of PEP 440, such as 1.4.0 or 1.4.0rc1"
TILES = "because the VAE makes one point of 8 x 8 pixels, and the denoiser one token of 2 x 2 points"

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
        "wanc: 1\nquantize: {smoth: {alpha: 0.5}}",
        "4:12",
        "quantize has no key smoth",
        "did you mean smooth? (it is not built yet)",
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
    "name with a line end": ("name: tiny-wan", 'name: "a\\n"', "4:7", 'name cannot be "a\\n"', FILE),
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
        "Where the weights come from, and which parts of them are built.",
    ),
    "no source": (
        "  source: ../models/tiny-wan",
        "  components: [vae_decoder]",
        "7:1",
        "model.source is missing",
        "The checkpoint's folder, relative to the file that this line is written in.",
    ),
    "empty source": (
        "source: ../models/tiny-wan",
        'source: ""',
        "8:11",
        "model.source: the path is empty",
        "name a folder",
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
        "The parts of the model to build; all of them unless named.",
    ),
    # shapes
    "odd height": (
        "height: 64, width: 64",
        "height: 100, width: 64",
        "12:25",
        f"shapes.0.height: 100 is not a multiple of 16: 4 pixels would be left over, {TILES}",
        "the nearest are 96 and 112",
    ),
    "odd width": (
        "width: 96",
        "width: 854",
        "13:41",
        f"shapes.1.width: 854 is not a multiple of 16: 6 pixels would be left over, {TILES}",
        "the nearest are 848 and 864",
    ),
    "small height": (
        "height: 64, width: 64",
        "height: 8, width: 64",
        "12:25",
        "shapes.0.height has to be at least 16, not the number 8",
        "In pixels, a multiple of 16.",
    ),
    "huge height": (
        "height: 64, width: 64",
        "height: 16400, width: 64",
        "12:25",
        "shapes.0.height has to be at most 16384, not the number 16400",
        "In pixels, a multiple of 16.",
    ),
    "height as float": (
        "height: 64, width: 64",
        "height: 64.0, width: 64",
        "12:25",
        "shapes.0.height has to be a whole number, not the number 64.0",
        "In pixels, a multiple of 16.",
    ),
    "frames": (
        "width: 64, frames: 17",
        "width: 64, frames: 80",
        "12:48",
        "shapes.0.frames: 80 is not 4n + 1: no number of latent frames decodes to it, because the first makes one "
        "frame and each later one four",
        "the nearest are 77 and 81",
    ),
    "too many frames": (
        "width: 64, frames: 17",
        "width: 64, frames: 4097",
        "12:48",
        "shapes.0.frames has to be at most 4093, not the number 4097",
        "Frames of video, 4n + 1: 17, 33, 49, 81.",
    ),
    "same name": (
        "name: 96p-wide",
        "name: 64P",
        "13:12",
        "shapes.1.name: the name 64P is taken by shapes.0",
        "give each shape a name of its own, different in more than case",
    ),
    "dot in a profile's name": ("name: 64p", "name: 64.p", "12:12", "shapes.0.name cannot be 64.p", PROFILE),
    "shape as text": (
        "  - {name: 64p, height: 64, width: 64, frames: 17}",
        "  - 64p",
        "12:5",
        "shapes.0 has to be a mapping, not the text 64p",
        "its keys are name, height, width, frames",
    ),
    "null in a list": (
        "  - {name: 64p, height: 64, width: 64, frames: 17}",
        "  -",
        "12:4",
        "shapes.0 has to be a mapping, not null",
        "its keys are name, height, width, frames",
    ),
    # sampling
    "unknown solver": (
        "solver: unipc",
        "solver: unicp",
        "16:11",
        "sampling.solver cannot be unicp",
        "did you mean unipc?",
    ),
    "strange solver": (
        "solver: unipc",
        "solver: no",
        "16:11",
        "sampling.solver cannot be 'no'",
        "it can be unipc, euler or dpm++",
    ),
    "no steps": ("steps: 20", "steps: 0", "17:10", "sampling.steps has to be at least 1, not the number 0", STEPS),
    "1,001 steps": (
        "steps: 20",
        "steps: 1001",
        "17:10",
        "sampling.steps has to be at most 1000, not the number 1001",
        STEPS,
    ),
    "steps as text": (
        "steps: 20",
        'steps: "20"',
        "17:10",
        "sampling.steps has to be a whole number, not the text '20'",
        STEPS,
    ),
    "steps as true": ("steps: 20", "steps: true", "17:10", "sampling.steps has to be a whole number, not true", STEPS),
    "steps as list": (
        "steps: 20",
        "steps: [1, 2]",
        "17:10",
        "sampling.steps has to be a whole number, not a list of 2",
        STEPS,
    ),
    "steps as mapping": (
        "steps: 20",
        "steps: {a: 1}",
        "17:10",
        "sampling.steps has to be a whole number, not a mapping",
        STEPS,
    ),
    "neither steps nor timesteps": (
        "  steps: 20\n",
        "",
        "16:3",
        "sampling: either steps or timesteps has to be given",
        "add a line such as `steps: 40`",
    ),
    "steps and timesteps": (
        "steps: 20",
        "steps: 20\n  timesteps: [1000, 500]",
        "18:14",
        "sampling.timesteps: steps and timesteps exclude each other",
        "remove one of them; `steps: null` takes away an inherited one",
    ),
    "rising timesteps": (
        "steps: 20",
        "timesteps: [1000, 500, 500.5]",
        "17:26",
        "sampling.timesteps.2: 500.5 does not fall below 500, the one before it",
        "order them from noise to video, such as [1000, 750, 500, 250]",
    ),
    "timestep at the end": (
        "steps: 20",
        "timesteps: [1000, 0]",
        "17:21",
        "sampling.timesteps.1 has to be above 0, not the number 0",
        "Instead of steps, for few-step models: the timesteps before the shift, such as [1000, 750, 500, 250].",
    ),
    "guided few-step model": (
        "steps: 20",
        "timesteps: [1000, 500]",
        "19:13",
        "sampling.guidance: a model with timesteps of its own takes no guidance",
        "remove guidance, or set both scales to 1",
    ),
    "no guidance": (
        "  guidance: {high: 4.0, low: 3.0}\n",
        "",
        "16:3",
        "sampling: guidance is missing",
        MODEL_OWN_SCALES,
    ),
    "one scale": (
        "guidance: {high: 4.0, low: 3.0}",
        "guidance: 4.0",
        "19:13",
        "sampling.guidance has to be a mapping, not the number 4.0",
        GUIDANCE,
    ),
    "half of the scales": (
        "guidance: {high: 4.0, low: 3.0}",
        "guidance: {high: 4.0}",
        "19:3",
        "sampling.guidance.low is missing",
        "For the low-noise expert, which makes the last steps.",
    ),
    "scale below 1": (
        "high: 4.0",
        "high: 0.5",
        "19:20",
        "sampling.guidance.high has to be at least 1, not the number 0.5",
        "For the high-noise expert, which makes the first steps.",
    ),
    "no shift": (
        "  shift: 5.0\n",
        "",
        "15:1",
        "sampling.shift is missing",
        "How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12.",
    ),
    "shift of nothing": (
        "shift: 5.0",
        "shift: 0.0",
        "18:10",
        "sampling.shift has to be above 0, not the number 0.0",
        "How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12.",
    ),
    "boundary as a timestep": (
        "boundary: 0.875",
        "boundary: 875",
        "20:13",
        "sampling.boundary has to be at most 1, not the number 875",
        "The noise level, 0 to 1, from which up the high-noise expert works; the model's own unless given.",
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
        "partition.devices.0.count cannot be 0",
        "it can be 1",
    ),
    "unknown engine": (
        "wanc: 1",
        "wanc: 1\nengine: {kind: tensort}",
        "4:16",
        "engine.kind cannot be tensort",
        "did you mean tensorrt? (it is not built yet)",
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
def test_what_is_wrong_is_said_with_its_place(case: str, write: Write, tiny: str) -> None:
    old, new, place, message, hint = WRONG[case]
    assert tiny.count(old) == 1
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny.replace(old, new)))
    assert caught.value.message == message
    assert caught.value.where == f"recipe.yaml:{place}"
    assert caught.value.hint == hint
    assert not isinstance(caught.value, NotBuiltYetError)


def test_the_nearest_size_is_a_legal_one(write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny.replace("height: 64, width: 64", "height: 16383, width: 64")))
    assert caught.value.hint == "the nearest are 16368 and 16384"
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny.replace("width: 64, frames: 17", "width: 64, frames: 4092")))
    assert caught.value.hint == "the nearest are 4089 and 4093"


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


@pytest.mark.parametrize("path", planned.KEYS)
def test_planned_keys_are_not_built_yet(path: str, write: Write, tiny: str) -> None:
    dotted = path.replace("*", "0")
    device = ["partition.devices=[{kind: cpu}]"] if "*" in path else []
    owner, _, _ = dotted.rpartition(".")
    takes = f"{owner} takes" if owner else "a recipe has"
    with pytest.raises(NotBuiltYetError) as caught:
        load(write("recipe.yaml", tiny), [*device, f"{dotted}={{any: 1}}"])
    known = {key for *places, key in all_paths() if ".".join(map(str, places)) == owner.replace(".0", "")}
    said, _, listed = caught.value.message.partition(": ")
    assert said == f"{dotted} is not built yet; today {takes}"
    assert set(listed.split(", ")) == known
    assert caught.value.where == f"--set {dotted}={{any: 1}}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precision.compute=bf16", "precision.compute: bf16 is not built yet; today wanc builds: fp32"),
        ("precision.compute=fp16", "precision.compute: fp16 is not built yet; today wanc builds: fp32"),
        ("fuse.passes=[sdpa, gelu]", "fuse.passes: [sdpa, gelu] is not built yet; today wanc builds: default"),
        ("quantize.scheme=int8", "quantize.scheme: int8 is not built yet; today wanc builds: none"),
        ("quantize.scheme=fp8", "quantize.scheme: fp8 is not built yet; today wanc builds: none"),
        ("engine.kind=tensorrt", "engine.kind: tensorrt is not built yet; today wanc builds: onnxruntime"),
        ("engine.kind=openvino", "engine.kind: openvino is not built yet; today wanc builds: onnxruntime"),
        ("engine.targets=[cpu, sm80]", "engine.targets.1: sm80 is not built yet; today wanc builds: cpu"),
        (
            "partition.devices=[{kind: a100-80g}]",
            "partition.devices.0.kind: a100-80g is not built yet; today wanc builds: cpu",
        ),
        (
            "partition.devices=[{kind: cpu, count: 4}]",
            "partition.devices.0.count: 4 is not built yet; today wanc builds: 1",
        ),
        (
            "partition.devices=[{kind: cpu}, {kind: cpu}]",
            "partition.devices: [{kind: cpu}, {kind: cpu}] is not built yet; today wanc builds: at most 1",
        ),
    ],
)
def test_planned_values_are_not_built_yet(override: str, message: str, write: Write, tiny: str) -> None:
    with pytest.raises(NotBuiltYetError) as caught:
        load(write("recipe.yaml", tiny), [override])
    assert caught.value.message == message
    assert caught.value.where == f"--set {override}"


def test_every_planned_value_is_refused_today(write: Write, tiny: str) -> None:
    path = write("recipe.yaml", tiny)
    for pattern, globs in planned.VALUES.items():
        for value in globs:
            if set(value) & set("*?["):
                continue
            leaf = f"[{value}]" if pattern.endswith(".*") else value
            leaf = f"[{{kind: {value}}}]" if pattern.endswith("*.kind") else leaf
            with pytest.raises(NotBuiltYetError):
                load(path, [f"{pattern.split('.*')[0]}={leaf}"])


def test_planned_keys_are_no_keys_of_the_schema() -> None:
    have = {".".join(map(str, path)) for path in all_paths()}
    assert not have & {key.replace(".*", "") for key in planned.KEYS}


def test_a_whole_planned_recipe_is_not_built_yet(write: Write, tiny: str) -> None:
    future = """
precision: {compute: bf16, islands: [residual, modulation, norm, rope, time]}
fuse: {passes: default, hoist: [time, text]}
quantize:
  scheme: int8
  method: ptq
  calibrate: {prompts: prompts/calibrate.txt, clips: 16, timestep_bins: 4, seed: 0}
  smooth: {alpha: search}
  keep: {patterns: [patch_embedding], sensitivity: {max_drop_db: 0.5}}
partition: {devices: [{kind: a100-80g, count: 4, link: nvlink}], objective: latency, branches: parallel}
engine: {kind: tensorrt, targets: [sm80]}
runtime: {kv_cache: {cross: true}, offload: {experts: swap}, budgets: {device: 70GiB}}
evaluate: {prompts: prompts/evaluate.txt, gates: {psnr_db: ">= 30"}}
"""
    with pytest.raises(NotBuiltYetError, match="and more"):
        load(write("recipe.yaml", tiny + future))


def test_one_real_fault_makes_it_a_recipe_error(write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny + "quantize: {scheme: int8}\nruntime: {threads: -1}\n"))
    assert type(caught.value) is RecipeError


def test_defaults(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    recipe = loaded.recipe
    assert recipe.model.components == ("text_encoder", "denoiser_high", "denoiser_low", "vae_decoder")
    assert recipe.sampling.fps == 16
    assert recipe.sampling.negative_prompt == ""
    assert recipe.sampling.timesteps is None
    assert recipe.precision.compute == "fp32"
    assert recipe.fuse.passes == "default"
    assert recipe.quantize.scheme == "none"
    assert [(device.kind, device.count) for device in recipe.partition.devices] == [("cpu", 1)]
    assert (recipe.engine.kind, recipe.engine.targets) == ("onnxruntime", ("cpu",))
    assert recipe.runtime.threads == 0


def test_few_step_model(write: Write, tiny: str) -> None:
    text = tiny.replace("steps: 20", "timesteps: [1000, 750, 500, 250]")
    text = text.replace("  guidance: {high: 4.0, low: 3.0}\n", "")
    (loaded,) = load(write("recipe.yaml", text))
    assert loaded.recipe.sampling.steps is None
    assert loaded.recipe.sampling.timesteps == (1000.0, 750.0, 500.0, 250.0)
    assert loaded.recipe.sampling.guidance == Guidance(high=1.0, low=1.0)


def test_components_have_the_models_order(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["model.components=[vae_decoder, denoiser_low]"])
    assert loaded.recipe.model.components == ("denoiser_low", "vae_decoder")


def test_recipes_are_frozen_and_hashable(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny))
    with pytest.raises(ValidationError):
        setattr(loaded.recipe, "name", "other")  # noqa: B010
    assert hash(loaded.recipe) == hash(Recipe.model_validate(loaded.recipe.model_dump()))
