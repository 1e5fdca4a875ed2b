"""What a recipe of a causal model cannot say, alone and of its checkpoint: each at its line, with what to write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.models.refusals import edit
from wanc.compiler.resolve import check_fits, open_model
from wanc.errors import RecipeError, UserError
from wanc.recipe.load import load

from .conftest import Write

RECIPE = """\
wanc: 1
name: causal
model:
  source: model
  family: wan-causal
  companion: companion
shapes:
  - {name: 64p, height: 64, width: 64, frames: 17}
sampling:
  solver: lcm
  steps: 4
  shift: 5.0
  guidance: {high: 1.0, low: 1.0}
runtime:
  kv_cache: {chunk: 3, window: 6, sink: 1}
"""
CACHE = "  kv_cache: {chunk: 3, window: 6, sink: 1}\n"
TRAINED = "quantize: {scheme: int8, method: qat, calibrate: {prompts: p.txt}}\n"
CHUNK = "Latent frames that are made together: what the model was trained with, such as 3."
WINDOW = "How many finished chunks a chunk sees besides itself and the sink, the last ones."
SINK = "How many of a video's first chunks are never given up."
AT_ONCE = (
    "runtime.kv_cache: a model of the family wan makes all frames at once: each of its steps changes every one of "
    "them, so that no keys and values of an earlier step can be kept"
)
LOOKS_BACK = (
    "remove it; of a checkpoint that was trained to look back alone, such as Self-Forcing's, write "
    "`family: wan-causal` under model"
)
NO_CACHE = (
    "runtime: kv_cache is missing: a causal model makes a chunk of frames at a time, and looks back at finished ones"
)
ADD_A_CACHE = "add to runtime a line such as `kv_cache: {chunk: 3, window: 6}`, with the chunk that it was trained with"

# name: (what stands in the recipe, what replaces it, line:column, message, hint)
WRONG: dict[str, tuple[str, str, str, str, str]] = {
    "a cache without a family": ("  family: wan-causal\n", "", "14:13", AT_ONCE, LOOKS_BACK),
    "a cache of another family": ("wan-causal", "wan", "15:13", AT_ONCE, LOOKS_BACK),
    "another runtime alone": (CACHE, "  threads: 1\n", "15:3", NO_CACHE, ADD_A_CACHE),
    "no runtime": (f"runtime:\n{CACHE}", "", "1:1", NO_CACHE, ADD_A_CACHE),
    "no cache any more": (
        "{chunk: 3, window: 6, sink: 1}",
        "null",
        "15:3",
        NO_CACHE,
        "runtime.kv_cache is null here, which takes away what was said before: give it a value",
    ),
    "training with relative positions": (
        f"runtime:\n{CACHE}",
        f"{TRAINED}runtime:\n  kv_cache: {{chunk: 3, window: 6, positions: relative}}\n",
        "14:34",
        "quantize.method: models with relative positions are not trained yet",
        "leave it at ptq, or write `positions: absolute` under kv_cache",
    ),
    "effects of Linears": (
        "runtime:\n",
        "quantize: {scheme: int8, keep: {sensitivity: {int8_share: 0.9}}, calibrate: {prompts: p.txt}}\nruntime:\n",
        "14:46",
        "quantize.keep.sensitivity: what quantising a Linear does to later chunks is not measured yet",
        "name what is to stay in float by keep.patterns, or remove it",
    ),
    "a chunk of nothing": (
        "chunk: 3",
        "chunk: 0",
        "15:21",
        "kv_cache.chunk has to be at least 1, not the number 0",
        CHUNK,
    ),
    "a long chunk": ("chunk: 3", "chunk: 65", "15:21", "kv_cache.chunk has to be at most 64, not the number 65", CHUNK),
    "no chunk": ("chunk: 3, ", "", "15:3", "kv_cache.chunk is missing", CHUNK),
    "no window": ("window: 6, ", "", "15:3", "kv_cache.window is missing", WINDOW),
    "an empty window": (
        "window: 6",
        "window: 0",
        "15:32",
        "kv_cache.window has to be at least 1, not the number 0",
        WINDOW,
    ),
    "a huge window": (
        "window: 6",
        "window: 2000",
        "15:32",
        "kv_cache.window has to be at most 1024, not the number 2000",
        WINDOW,
    ),
    "a negative sink": ("sink: 1", "sink: -1", "15:41", "kv_cache.sink has to be at least 0, not the number -1", SINK),
    "an unknown precision": (
        "sink: 1",
        "precision: int2",
        "15:46",
        "kv_cache.precision cannot be int2",
        "did you mean int8?",
    ),
    "a report on relative positions": (
        CACHE,
        "  kv_cache: {chunk: 3, window: 6, positions: relative}\nevaluate: {prompts: p.txt}\n",
        "15:46",
        "kv_cache.positions: reports have no reference for relative positions yet",
        "remove evaluate, or write `positions: absolute`",
    ),
    "unknown positions": (
        "sink: 1",
        "positions: relativ",
        "15:46",
        "kv_cache.positions cannot be relativ",
        "did you mean relative?",
    ),
    "an unknown family": ("wan-causal", "causal", "5:11", "model.family cannot be causal", "did you mean wan-causal?"),
    "a family of an ONNX file": (
        "source: model",
        "onnx: model.onnx",
        "5:11",
        "model.family: onnx models have no family",
        "remove it; it says something only of a model given as source",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_at_its_line(name: str, write: Write) -> None:
    old, new, place, message, hint = WRONG[name]
    assert RECIPE.count(old) == 1
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", RECIPE.replace(old, new)))
    assert caught.value.message.removeprefix("runtime.") == message.removeprefix("runtime.")
    assert (caught.value.where, caught.value.hint) == (f"recipe.yaml:{place}", hint)


def test_it_may_be_trained(write: Write) -> None:
    (loaded,) = load(write("recipe.yaml", RECIPE.replace("runtime:\n", f"{TRAINED}runtime:\n")))
    assert loaded.recipe.quantize.method == "qat"


def test_noise_is_added_by_causal_models_alone(write: Write) -> None:
    recipe = RECIPE.replace("wan-causal", "wan").replace(f"runtime:\n{CACHE}", "")
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", recipe))
    assert (caught.value.message, caught.value.where, caught.value.hint) == (
        "sampling.solver: lcm samples causal models alone so far",
        "recipe.yaml:10:11",
        "take euler, unipc or dpm++",
    )


def test_chunks_are_judged_of_causal_models_alone(write: Write) -> None:
    judged = RECIPE + 'evaluate: {prompts: p.txt, gates: {chunk_psnr_db: ">= 30"}}\n'
    load(write("recipe.yaml", judged))
    at_once = judged.replace("wan-causal", "wan").replace(f"runtime:\n{CACHE}", "").replace("lcm", "euler")
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", at_once))
    assert (caught.value.message, caught.value.where, caught.value.hint) == (
        "evaluate.gates.chunk_psnr_db: a model of the family wan makes all frames at once",
        "recipe.yaml:14:51",
        "take psnr_db",
    )


# Of a checkpoint

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-wan"
KIND = "CausalWanTransformer3DModel"


@pytest.fixture
def checkpoint(write: Write) -> Path:
    """A causal model of one expert beside a companion, both of tiny-wan, and a recipe for them."""
    write("recipe.yaml", RECIPE)
    write(
        "model/model_index.json", json.dumps({"_class_name": "WanCausalPipeline", "transformer": ["diffusers", KIND]})
    )
    shutil.copytree(TINY / "transformer", "model/transformer")
    edit(Path("model/transformer/config.json"), _class_name=KIND)
    shutil.copytree(TINY, "companion")
    return Path("model/transformer/config.json")


def refused() -> UserError:
    (loaded,) = load("recipe.yaml")
    with pytest.raises(UserError) as caught:
        check_fits(loaded, open_model(loaded))
    return caught.value


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"num_frame_per_block": 3},
        {"num_frames_per_block": 3, "sink_size": 3, "local_attn_size": 24},
        {"sink_size": 0, "local_attn_size": -1},
    ],
)
def test_a_cache_that_the_checkpoint_was_trained_with(checkpoint: Path, said: dict[str, int]) -> None:
    edit(checkpoint, **said)
    (loaded,) = load("recipe.yaml")
    check_fits(loaded, open_model(loaded))


@pytest.mark.parametrize(
    ("said", "place", "message", "hint"),
    [
        (
            {"num_frame_per_block": 1},
            "15:21",
            "chunk: the checkpoint was trained with chunks of 1 latent frames, by its num_frame_per_block",
            "write `chunk: 1`",
        ),
        (
            {"num_frames_per_block": 4},
            "15:21",
            "chunk: the checkpoint was trained with chunks of 4 latent frames, by its num_frames_per_block",
            "write `chunk: 4`",
        ),
        (
            {"sink_size": 6},
            "15:41",
            "sink: the checkpoint was trained with the first 6 latent frames in sight, by its sink_size",
            "write `sink: 2`",
        ),
        (
            {"local_attn_size": 21},
            "15:32",
            "window: 24 latent frames would be in sight, and the checkpoint was trained with 21, "
            "by its local_attn_size",
            "write `window: 5`",
        ),
    ],
)
def test_a_cache_that_it_was_not_trained_with(
    checkpoint: Path, said: dict[str, int], place: str, message: str, hint: str
) -> None:
    edit(checkpoint, **said)
    error = refused()
    assert (error.message, error.where, error.hint) == (f"runtime.kv_cache.{message}", f"recipe.yaml:{place}", hint)


# Of a companion


def cause(error: UserError) -> str:
    return str(error.__cause__).replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize(("part", "name"), [("text_encoder", "text_encoder"), ("vae", "vae_decoder")])
def test_a_companion_that_lacks_a_part(checkpoint: Path, part: str, name: str) -> None:
    edit(Path("companion/model_index.json"), **{part: None})
    error = refused()
    assert (error.where, cause(error)) == ("recipe.yaml:6:14", f"companion: the model has no component {name}")


def test_a_companion_without_its_tokenizer(checkpoint: Path) -> None:
    Path("companion/tokenizer/tokenizer.json").unlink()
    error = refused()
    said = "companion/tokenizer/tokenizer.json: missing tokenizer"
    assert (error.where, cause(error)) == ("recipe.yaml:6:14", said)


def test_a_companion_of_another_width(checkpoint: Path) -> None:
    shutil.rmtree("companion")
    write_checkpoint(Path("companion"), seed=1)
    error = refused()
    said = "text_dim of denoiser_high is 128, and d_model of text_encoder is 16: they are not of one model"
    assert (error.where, cause(error)) == ("recipe.yaml:4:11", f"model: {said}")


def test_a_companion_that_is_called_something_else(checkpoint: Path) -> None:
    Path("companion").rename("companions")
    error = refused()
    assert (error.where, error.hint) == ("recipe.yaml:6:14", "did you mean companions?")
    assert cause(error) == "companion: no such folder"
