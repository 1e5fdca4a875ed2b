"""What is written is read back as the same: recipes, single values, starters, the JSON Schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.errors import RecipeError
from wanc.recipe.checks import LARGEST_SIZE
from wanc.recipe.fields import all_paths, fields_at
from wanc.recipe.json_schema import json_schema
from wanc.recipe.load import load
from wanc.recipe.model import COMPONENTS, KINDS, Component
from wanc.recipe.new import starter
from wanc.recipe.prompts import read_prompts
from wanc.recipe.quantize import (
    SCHEMES,
    TEXT_ENCODER_SCHEMES,
    TRAINABLE,
    WEIGHT_ONLY,
    Scheme,
    TextEncoderScheme,
)
from wanc.recipe.schema import PARTS, Lint, PassName, Recipe
from wanc.recipe.section import FACTORY, FILE_NAME, IDENTIFIER, MODULE_GLOB, PROFILE_NAME, VERSION
from wanc.recipe.show import flow, to_yaml
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import TextSource, plain
from wanc.runtime.dimensions import Dtype
from wanc.runtime.video_limits import LARGEST_SIDE, MOST_FRAMES
from wanc.words import FUSED_OPERATORS, ISLANDS, OBSERVERS

Write = Callable[[str, str | bytes], Path]

ROOT = Path(__file__).parents[2]
SOURCE = TextSource("value", Path())

# Text that looks like something else, and any other that a recipe can hold.
TRICKY = st.sampled_from(
    ["no", "1e5", "0o17", "12:30:00", "~", "", " a ", "- a", "a: b", "#", "'", '"', "\\", "a\nb", "&a", "*a"]
)
TEXT = (
    TRICKY
    | st.text(st.characters(exclude_categories=("Cs", "Cc")))
    | st.text(st.sampled_from("a \n\t\r\x85\u2028é😀:"))
)
# Control characters have no escape that a recipe accepts.
TEXTS = TEXT.filter(lambda text: not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text))
NUMBER = st.floats(min_value=1, max_value=1e6)


def matching(pattern: str, longest: int) -> st.SearchStrategy[str]:
    # A dollar sign also matches before a last line end, for Python but not for pydantic.
    return st.from_regex(pattern.removesuffix("$") + r"\Z").filter(lambda text: len(text) <= longest)


SHAPES = st.lists(
    st.fixed_dictionaries(
        {
            "name": matching(PROFILE_NAME, 32),
            "height": st.integers(1, LARGEST_SIDE // 16).map(lambda tokens: tokens * 16),
            "width": st.integers(1, LARGEST_SIDE // 16).map(lambda tokens: tokens * 16),
            "frames": st.integers(0, MOST_FRAMES // 4).map(lambda count: 4 * count + 1),
        }
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda shape: cast(str, shape["name"]).casefold(),
)
EVEN = {"steps": st.integers(1, 1000), "guidance": st.fixed_dictionaries({"high": NUMBER, "low": NUMBER})}
LISTED = {
    "timesteps": st.lists(st.floats(0, 1000, exclude_min=True), min_size=1, max_size=8, unique=True).map(
        lambda values: tuple(sorted(values, reverse=True))
    )
}
HOW = {"solver": st.sampled_from(["unipc", "euler", "dpm++"]), "shift": st.floats(0, 1e3, exclude_min=True)}
MAYBE = {
    "allow": st.lists(st.sampled_from(get_args(Lint)), unique=True).map(tuple),
    "boundary": st.floats(0, 1),
    "negative_prompt": TEXTS,
    "fps": st.integers(1, 240),
}


PATHS = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters="/."), min_size=1).map("/{}".format)
SYMBOLS = st.sampled_from(["rows", "tokens", "_N2"])
DIMENSIONS = st.integers(0, LARGEST_SIZE) | SYMBOLS | st.builds("{}*{}".format, st.integers(1, 99), SYMBOLS)
IDENTIFIERS = matching(IDENTIFIER, 64)
INPUTS = st.lists(
    st.fixed_dictionaries(
        {"name": IDENTIFIERS, "shape": st.lists(DIMENSIONS, max_size=4).map(tuple)},
        optional={"dtype": st.sampled_from(get_args(Dtype))},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda entry: cast(str, entry["name"]),
).map(tuple)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SIZES = st.integers(1, LARGEST_SIZE)


@st.composite
def torch_models(draw: st.DrawFn) -> dict[str, Any]:
    inputs = draw(INPUTS)
    sizes = {size.rpartition("*")[2] for entry in inputs for size in entry["shape"] if isinstance(size, str)}
    optional = {
        "outputs": st.lists(IDENTIFIERS, unique=True, max_size=3).map(tuple),
        "files": st.lists(PATHS, max_size=3).map(tuple),
        "values": st.fixed_dictionaries({}, optional={entry["name"]: FINITE for entry in inputs}),
        "allow_not_finite": st.lists(TEXTS, max_size=2).map(tuple),
    }
    return {
        "torch": draw(matching(FACTORY, 256)),
        "inputs": inputs,
        "example": {name: draw(SIZES) for name in sorted(sizes)},
        **draw(st.fixed_dictionaries({}, optional=optional)),
    }


ONNX_MODELS = st.fixed_dictionaries(
    {"onnx": PATHS},
    optional={
        "example": st.dictionaries(matching(PROFILE_NAME, 32), SIZES, max_size=3),
        "values": st.dictionaries(matching(PROFILE_NAME, 32), FINITE, max_size=3),
    },
)


@st.composite
def videos(draw: st.DrawFn) -> dict[str, Any]:
    """What a recipe for a Wan checkpoint has and no other."""
    names: list[Component] = draw(st.lists(st.sampled_from(COMPONENTS), unique=True))
    schedule = draw(st.sampled_from((EVEN, LISTED)))
    return {
        "model": {"source": draw(PATHS), **({"components": tuple(names)} if names else {})},
        "shapes": tuple(draw(SHAPES)),
        "sampling": draw(st.fixed_dictionaries({**HOW, **schedule}, optional=MAYBE)),
    }


GRAPHS = st.fixed_dictionaries({"model": ONNX_MODELS | torch_models()})


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


FUSE = st.fixed_dictionaries(
    {},
    optional={
        "passes": st.just("default") | some(get_args(PassName)),
        "skip": some(get_args(PassName)),
        "hoist": some(PARTS),
    },
)
ALLOW_UNFUSED = some(FUSED_OPERATORS)
ENGINES = st.fixed_dictionaries(
    {"engine": st.fixed_dictionaries({"kind": st.just("onnxruntime")}, optional={"allow_unfused": ALLOW_UNFUSED})}
) | st.fixed_dictionaries(
    {
        "engine": st.fixed_dictionaries({"kind": st.just("openvino")}, optional={"allow_unfused": ALLOW_UNFUSED}),
        "precision": st.fixed_dictionaries(
            {}, optional={"compute": st.sampled_from(["fp32", "bf16"]), "islands": some(ISLANDS)}
        ),
    }
)


CALIBRATE = st.fixed_dictionaries(
    {"prompts": PATHS, "clips": st.integers(4, 1024)},
    optional={
        "shapes": SHAPES.filter(lambda shapes: len(shapes) <= 4).map(tuple),
        "timestep_bins": st.integers(1, 64),
        "seed": st.integers(0, 2**53),
        "observer": st.sampled_from(OBSERVERS),
    },
)
SMOOTH = st.fixed_dictionaries({}, optional={"alpha": st.sampled_from(["search", "none", 0, 1]) | st.floats(0, 1)})
SENSITIVITY = st.fixed_dictionaries({"max_drop_db": st.floats(0, 1e3, exclude_min=True)}) | st.fixed_dictionaries(
    {"int8_share": st.floats(0, 1, exclude_min=True)}
)
KEEP = st.fixed_dictionaries(
    {},
    optional={
        "patterns": st.lists(matching(MODULE_GLOB, 256), unique=True, max_size=4).map(tuple),
        "sensitivity": SENSITIVITY,
    },
)


def schemes_of(engine: str, fuse: Mapping[str, Any]) -> tuple[Scheme, ...]:
    if "merge-projections" in fuse.get("passes", ()) and "merge-projections" not in fuse.get("skip", ()):
        return ("none",)
    return tuple(scheme for scheme in SCHEMES if (scheme, engine) != ("int8-dynamic", "openvino"))


@st.composite
def quantised(draw: st.DrawFn, schemes: tuple[Scheme, ...]) -> dict[str, Any]:
    scheme = draw(st.sampled_from(schemes))
    encoder = draw(st.sampled_from(TEXT_ENCODER_SCHEMES)) if len(schemes) > 1 else "none"
    decoder = draw(st.sampled_from(["none", "int8"])) if len(schemes) > 1 and "int8-dynamic" not in schemes else "none"
    if scheme == "none" and decoder != "none":
        return {"text_encoder": encoder, **draw(quantised_decoder(encoder))}
    if scheme == "none":
        return {} if encoder == "none" else draw(quantised_encoder(encoder))
    optional = {
        "keep": KEEP,
        "attention": st.just("float"),
        "method": st.sampled_from(["ptq", "qat"] if scheme in TRAINABLE else ["ptq"]),
        **({} if {scheme, encoder} <= {*WEIGHT_ONLY, "none"} else {"smooth": SMOOTH}),
        **({} if scheme == "fp8" else {"emulate": st.booleans()}),
    }
    needed = {"calibrate": CALIBRATE, **({"emulate": st.just(True)} if scheme == "fp8" else {})}
    asked = {"scheme": scheme, "text_encoder": encoder, "vae_decoder": decoder}
    return {**asked, **draw(st.fixed_dictionaries(needed, optional=optional))}


def quantised_decoder(encoder: TextEncoderScheme) -> st.SearchStrategy[dict[str, Any]]:
    """Where the denoisers stay in float."""
    patterns = st.fixed_dictionaries(
        {}, optional={"patterns": st.lists(matching(MODULE_GLOB, 256), unique=True).map(tuple)}
    )
    optional = {"keep": patterns, **({"smooth": SMOOTH} if encoder == "int8" else {})}
    calibrate = CALIBRATE.map(lambda asked: {key: asked[key] for key in asked if key != "timestep_bins"})
    return st.fixed_dictionaries({"vae_decoder": st.just("int8"), "calibrate": calibrate}, optional=optional)


def quantised_encoder(scheme: TextEncoderScheme) -> st.SearchStrategy[dict[str, Any]]:
    """Where the denoisers stay in float."""
    optional = {"keep": KEEP, **({"smooth": SMOOTH} if scheme == "int8" else {})}
    calibrate = CALIBRATE.map(lambda asked: {key: asked[key] for key in ("prompts", "observer") if key in asked})
    needed = {"text_encoder": st.just(scheme), "calibrate": calibrate}
    return st.fixed_dictionaries(needed, optional=optional)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    how, what, fuse = draw(ENGINES), draw(videos() | GRAPHS), draw(FUSE)
    schemes = schemes_of(how["engine"]["kind"], fuse) if "sampling" in what else ("none",)
    data = {
        "wanc": 1,
        "name": draw(matching(FILE_NAME, 64)),
        "version": draw(matching(VERSION, 32)),
        "fuse": fuse,
        "runtime": {"threads": draw(st.integers(0, 1024))},
        "quantize": draw(quantised(schemes)),
        **how,
        **what,
    }
    return Recipe.model_validate(data)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(recipe=recipes())
def test_a_shown_recipe_loads_as_the_same(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = to_yaml(recipe)
    path = tmp_path_factory.getbasetemp() / "shown.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    (loaded,) = load(path)
    assert loaded.recipe == recipe
    assert to_yaml(loaded.recipe) == text


@settings(derandomize=True, deadline=None, max_examples=200)
@given(text=TEXT)
def test_any_text_is_written_so_that_it_is_read_as_text(text: str) -> None:
    assert plain(parse(flow({"key": text}), SOURCE)) == {"key": text}


@settings(derandomize=True, deadline=None, max_examples=200)
@given(number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_any_number_is_written_so_that_it_is_read_as_itself(number: float) -> None:
    (read,) = cast(tuple[float], plain(parse(flow([number]), SOURCE)))
    assert (read, type(read)) == (number, type(number))


def test_what_is_shown_reads_well(write: Write, tiny: str, tmp_path: Path) -> None:
    (loaded,) = load(write("recipes/recipe.yaml", tiny), ['sampling.negative_prompt="no"', "runtime.threads=2"])
    shown = to_yaml(loaded.recipe)
    assert shown.splitlines()[:7] == [
        "wanc: 1",
        "name: tiny-wan",
        "version: 0.1.0",
        "model:",
        f"  source: {tmp_path / 'models/tiny-wan'}",
        "shapes:",
        "  - name: 64p",
    ]
    assert "  negative_prompt: 'no'\n" in shown
    assert "timesteps" not in shown
    assert shown.endswith("runtime:\n  threads: 2\n  decode:\n    tile: auto\n")


def test_long_text_stays_in_one_line(write: Write, tiny: str) -> None:
    prompt = "过曝，静态，" * 50
    (loaded,) = load(write("recipe.yaml", tiny), [f"sampling.negative_prompt={prompt}"])
    assert f"negative_prompt: {prompt}\n" in to_yaml(loaded.recipe)


# ready recipes and their schema


READY = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", READY, ids=lambda path: cast(Path, path).name)
def test_ready_recipes_load_and_name_their_schema(path: Path) -> None:
    assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    for loaded in load(path):
        assert loaded.recipe.name.startswith(path.stem)


@pytest.mark.parametrize("path", READY, ids=lambda path: cast(Path, path).name)
def test_ready_recipes_check(path: Path, wanc: Callable[..., Any], tmp_path: Path) -> None:
    """Against checkpoints of the true sizes, with holes for weights, where the repository does not hold the model."""
    options: list[str] = []
    recipes = load(path)
    model = {"checkpoints/Wan2.2-T2V-A14B": "wan2.2-t2v-a14b", "checkpoints/Wan2.1-T2V-1.3B": "wan2.1-t2v-1.3b"}
    source = recipes[0].recipe.model.source
    assert source is not None
    if (name := model.get(source.relative_to(ROOT).as_posix())) is not None:
        make(MODELS[name], "diffusers", tmp_path / "model", seed=1, sparse=True)
        options = ["--set", f"model.source={tmp_path}/model"]
    if source.name == "Self-Forcing-1.3B":  # beside what it was made of, which its folder lacks
        make(MODELS["wan2.1-t2v-1.3b"], "diffusers", tmp_path / "model", seed=1, sparse=True)
        config = tmp_path / "model/transformer/config.json"
        marked = {**json.loads(config.read_text()), "_class_name": "CausalWanTransformer3DModel"}
        config.write_text(json.dumps({**marked, "num_frame_per_block": 3}))
        options = ["--set", f"model.source={tmp_path}/model", "--set", f"model.companion={tmp_path}/model"]
    finished = wanc("recipe", "check", path, *options)
    names = ", ".join(loaded.recipe.name for loaded in recipes)
    assert (finished.code, finished.out, finished.err) == (0, f"ok: {names}\n", "")


def test_tiny_wan() -> None:
    (loaded,) = load(ROOT / "recipes/tiny-wan.yaml")
    recipe = loaded.recipe
    assert recipe.model.source == ROOT / "models/tiny-wan"
    assert [(shape.height, shape.width, shape.frames) for shape in recipe.shapes] == [(64, 64, 17), (64, 96, 17)]
    assert (recipe.sampling.solver, recipe.sampling.steps, recipe.sampling.shift) == ("unipc", 20, 4.0)
    assert (recipe.sampling.guidance.high, recipe.sampling.guidance.low) == (3.0, 3.0)
    assert recipe.sampling.boundary == 0.875


def test_tiny_wan_int8() -> None:
    (loaded,) = load(ROOT / "recipes/tiny-wan-int8.yaml")
    quantize = loaded.recipe.quantize
    assert (quantize.scheme, quantize.method, quantize.smooth.alpha) == ("int8", "ptq", "search")
    assert quantize.calibrate.prompts is not None
    assert len(read_prompts(quantize.calibrate.prompts)) >= quantize.calibrate.clips


def test_the_schema_file_is_up_to_date() -> None:
    kept = json.loads((ROOT / "recipes/recipe.schema.json").read_text())
    assert kept == json_schema(), "write it again: wanc recipe schema > recipes/recipe.schema.json"


def test_the_schema_has_every_key_and_a_description_for_it() -> None:
    schema = json_schema()
    for *owner, name in all_paths():
        section: dict[str, Any] = schema
        for key in owner:
            field = section["properties"][key]
            section = definition_in(schema, field)
        field = section["properties"][name]
        assert field.get("description") or definition_in(schema, field)["description"]
        assert section["additionalProperties"] is False


def definition_in(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """The one section that a key leads to, by itself, as an item of a list, or with null as the alternative."""
    found = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(field)))
    assert len(found) == 1, field
    return schema["$defs"][found.pop()]


def test_the_schema_requires_keys_only_of_recipes_that_extend_nothing() -> None:
    schema = json_schema()
    assert "required" not in schema
    assert schema["if"] == {"not": {"required": ["extends"]}}
    assert schema["then"]["required"] == ["wanc", "name", "model"]
    assert schema["then"]["if"] == {"properties": {"model": {"required": ["source"]}}}
    assert schema["then"]["then"] == {"required": ["shapes", "sampling"]}
    assert schema["then"]["properties"]["model"] == {"oneOf": [{"required": [kind]} for kind in KINDS]}
    assert schema["$defs"]["ShapeSection"]["required"] == ["name", "height", "width", "frames"]
    required = {name for name, field in fields_at(("sampling",)).items() if field.is_required()}
    assert required == set(schema["then"]["properties"]["sampling"]["required"])


def test_the_schema_names_no_host() -> None:
    schema = json_schema()
    assert schema["$id"] == "urn:wanc:recipe:1"
    assert "://" not in json.dumps({key: value for key, value in schema.items() if key != "$schema"})


# new recipes


@pytest.mark.parametrize(
    "source", ["../models/wan", "with space", "no", "1e5", "a: b # c", "{name}", "q\"u'ote", "模型"]
)
def test_a_starter_loads(source: str, write: Write, tmp_path: Path) -> None:
    (loaded,) = load(write("recipes/new.yaml", starter(source, "my-wan")))
    assert loaded.recipe.name == "my-wan"
    assert loaded.recipe.model.source == Path(tmp_path, "recipes", source).resolve()


def test_what_a_starter_comments_out_loads_as_well(write: Write) -> None:
    text = re.sub(r"^(\s*)# (?=\w+:|  \w+:)", r"\1", starter("wan", "my-wan"), flags=re.MULTILINE)
    loaded = load(write("new.yaml", text))
    assert [one.recipe.name for one in loaded] == ["my-wan-fast", "my-wan-fine"]
    assert [one.recipe.sampling.boundary for one in loaded] == [0.875, 0.875]


def test_a_starter_writes_the_defaults_that_it_claims(write: Write) -> None:
    text = starter("wan", "my-wan")
    required = text[: text.index("# What follows are the defaults.")]
    assert load(write("a.yaml", text))[0].recipe == load(write("b.yaml", required))[0].recipe


@pytest.mark.parametrize("name", ["480", "1.5", "no"])
def test_a_starters_name_is_text_whatever_it_looks_like(name: str, write: Write) -> None:
    assert load(write("new.yaml", starter("wan", name)))[0].recipe.name == name


def test_a_starter_needs_a_name_for_a_bundle() -> None:
    with pytest.raises(RecipeError) as caught:
        starter("wan", "a/b")
    assert caught.value.message == "a/b is no name for a recipe"


# imports


def test_the_room_imports_nothing_heavy() -> None:
    code = (
        "import sys, wanc.recipe, wanc.recipe.json_schema, wanc.recipe.new\n"
        "print(*({'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'numpy', 'diffusers'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == ""


def test_components_are_all_that_the_type_names() -> None:
    assert get_args(Component) == COMPONENTS
