"""A recipe and a model that do not fit are refused before any work, at the recipe's line, with what would fit."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.checkpoints import write_checkpoint
from tests.models.refusals import edit
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.export.wan import Export
from wanc.compiler.resolve import Resolved, resolve
from wanc.errors import UserError, render
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.recipe.load import load

ROOT = Path(__file__).parents[2]
TINY = ROOT / "models" / "tiny-wan"
RECIPE = """\
wanc: 1
name: facts
model:
  source: model
shapes:
  - {name: small, height: 64, width: 96, frames: 17}
sampling:
  steps: 20
  shift: 4.0
  guidance: {high: 3.0, low: 3.0}
"""
Resolve = Callable[..., Resolved]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of tiny-wan beside a recipe for it."""
    return shutil.copytree(TINY, tmp_path / "model")


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    digests = SourceDigests(Store.open(tmp_path / "artifacts/store"))

    def run(*overrides: str) -> Resolved:
        (loaded,) = load("recipe.yaml", overrides)
        return resolve(loaded, digests, progress=False)

    return run


def refusal(resolved: Resolve, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        resolved(*overrides)
    return render(caught.value).replace(str(Path.cwd()), "DIR")


def test_the_tiny_model_resolves_in_no_time(model: Path, resolved: Resolve) -> None:
    resolved()
    started = time.process_time()
    resolved()
    assert time.process_time() - started < 1


# sizes


@pytest.mark.parametrize(
    ("frames", "message", "hint"),
    [
        (
            5,
            "5 is not 8n + 1: the first latent frame of this model's VAE makes one frame, and each later one 8",
            "the nearest are 1 and 9",
        ),
        (
            21,
            "21 is not 8n + 1: the first latent frame of this model's VAE makes one frame, and each later one 8",
            "the nearest are 17 and 25",
        ),
    ],
)
def test_frames_of_another_stride(resolved: Resolve, frames: int, message: str, hint: str) -> None:
    write_checkpoint(Path("model"), seed=1, vae_mult=(1, 1, 1, 1), vae_temporal=(True, True, True))
    assert refusal(resolved, f"shapes.0.frames={frames}", "sampling.shift=5.0") == (
        f"error: --set shapes.0.frames={frames}: shapes.0.frames: {message}\nhint: {hint}"
    )
    resolved("shapes.0.frames=25", "sampling.shift=5.0")


def test_sides_of_another_stride(resolved: Resolve) -> None:
    """Five levels: one point of 16 x 16 pixels, and a token of 2 x 2 points."""
    write_checkpoint(Path("model"), seed=1, vae_mult=(1, 1, 1, 1, 1), vae_temporal=(True, False, False, False))
    assert refusal(resolved, "shapes.0.height=80", "shapes.0.width=112", "sampling.shift=5.0") == (
        "error: --set shapes.0.height=80: shapes.0.height: 80 is not a multiple of 32: this model's VAE makes one "
        "point of 16 x 16 pixels, and its denoiser one token of 2 points\n"
        "  also --set shapes.0.width=112: shapes.0.width: 112 is not a multiple of 32: this model's VAE makes one "
        "point of 16 x 16 pixels, and its denoiser one token of 2 points (the nearest are 96 and 128)\n"
        "hint: the nearest are 64 and 96"
    )
    resolved("sampling.shift=5.0")


def test_sizes_to_calibrate_at(resolved: Resolve) -> None:
    """Like those of the bundle."""
    write_checkpoint(Path("model"), seed=1, vae_mult=(1, 1, 1, 1, 1), vae_temporal=(True, False, False, False))
    Path("prompts.txt").write_text("A red circle.\n")
    asked = ("quantize.scheme=int8", "quantize.calibrate.prompts=prompts.txt", "sampling.shift=5.0")
    small = "quantize.calibrate.shapes=[{{name: small, height: {}, width: 32, frames: 5}}]"
    refused = refusal(resolved, *asked, small.format(48))
    assert refused.startswith("error: --set quantize.calibrate.shapes=[{name: small, height: 48")
    assert refused.endswith(
        ": quantize.calibrate.shapes.0.height: 48 is not a multiple of 32: this model's VAE makes one "
        "point of 16 x 16 pixels, and its denoiser one token of 2 points\nhint: the nearest are 32 and 64"
    )
    resolved(*asked, small.format(32))


def test_patches_of_another_size(model: Path, resolved: Resolve) -> None:
    """Three points to a token: a recipe's sizes are multiples of 48 then."""
    for folder in ("transformer", "transformer_2"):
        path = model / folder / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        tensors["patch_embedding.weight"] = tensors["patch_embedding.weight"].new_ones(160, 16, 1, 3, 2)
        tensors["proj_out.weight"] = tensors["proj_out.weight"].new_ones(16 * 6, 160)
        tensors["proj_out.bias"] = tensors["proj_out.bias"].new_ones(16 * 6)
        save_file(tensors, path)
        edit(model / folder / "config.json", patch_size=[1, 3, 2])
    assert "shapes.0.height: 64 is not a multiple of 24" in refusal(resolved)
    assert refusal(resolved).endswith("\nhint: the nearest are 48 and 96")
    resolved("shapes.0.height=48")


def test_positions_for_fewer_tokens(model: Path, resolved: Resolve) -> None:
    """One of two experts is enough."""
    edit(model / "transformer_2/config.json", rope_max_seq_len=5)
    assert refusal(resolved) == (
        "error: recipe.yaml:6:38: shapes.0.width: 96 pixels are 6 tokens, and the model has positions for 5\n"
        "hint: at most 80"
    )
    resolved("shapes.0.width=80")


def test_positions_for_fewer_frames(model: Path, resolved: Resolve) -> None:
    edit(model / "transformer/config.json", rope_max_seq_len=6)
    assert refusal(resolved, "shapes.0.frames=25") == (
        "error: --set shapes.0.frames=25: shapes.0.frames: 25 frames are 7 latent frames, and the model has positions "
        "for 6\nhint: at most 21"
    )
    resolved("shapes.0.frames=21")


@pytest.mark.parametrize(
    ("file", "key", "value", "override", "where", "message"),
    [
        (
            "vae",
            "latents_std",
            [1e-9] * 16,
            "",
            "recipe.yaml:4:11",
            "model.latent_std.0 must be at least 1e-06, not 1e-09",
        ),
        ("vae", "latents_mean", [1e7] * 16, "", "recipe.yaml:4:11", "model.latent_mean.0 must be at most 1000000.0"),
        (
            "",
            "",
            None,
            "sampling.shift=1.0e-7",
            "--set sampling.shift=1.0e-7",
            "sampling.shift must be at least 1e-06",
        ),
    ],
)
def test_what_no_bundle_may_say_is_refused_before_it_is_built(
    model: Path, resolved: Resolve, file: str, key: str, value: Any, override: str, where: str, message: str
) -> None:
    """A bundle that says it would be sealed, and refused by its own runtime."""
    if file:
        edit(model / file / "config.json", **{key: value})
    overrides = [override, "sampling.steps=2", "sampling.allow=[checkpoint-shift, idle-expert]"] if override else []
    assert refusal(resolved, *overrides).startswith(f"error: {where}: {message}")


# what the recipe allows


def test_a_key_is_allowed_by_the_recipe(model: Path, resolved: Resolve) -> None:
    edit(model / "transformer/config.json", newer="x")
    assert refusal(resolved) == (
        "error: recipe.yaml:4:11: the model cannot be read\n"
        'caused by: DIR/model/transformer/config.json: newer is "x", and wanc does not know this key: it may change '
        "the model\n"
        "hint: if the model can do without, let it pass: `allow: [newer]` under model"
    )
    assert resolved("model.allow=[newer]").model.zeros == ()


def test_a_name_that_allows_nothing(model: Path, resolved: Resolve) -> None:
    assert refusal(resolved, "model.allow=[newer]") == (
        "error: --set model.allow=[newer]: model.allow names newer, which is neither a key that wanc has doubts about "
        "nor a tensor\nhint: remove it, or look with wanc inspect what the weights are called"
    )
    assert resolved("model.allow=[proj_out.weight]").model.zeros == ("proj_out.weight",)


@pytest.mark.parametrize("shift", [12.0, 8.0, 2.5])
def test_a_shift_that_is_not_the_schedulers(model: Path, resolved: Resolve, shift: float) -> None:
    edit(model / "scheduler/scheduler_config.json", flow_shift=shift)
    assert refusal(resolved) == (
        f"error: recipe.yaml:9:10: sampling.shift: the checkpoint's scheduler has {shift:g}, and 4 is another schedule "
        f"than it was tuned with\nhint: write `shift: {shift:.1f}`; if it is meant, "
        "add `allow: [checkpoint-shift]` to sampling"
    )
    resolved("sampling.allow=[checkpoint-shift]")


# the tokenizer, which the export's process opens


def exported(model: Path, out: Path) -> str:
    """What the export says."""
    checkpoint = open_checkpoint(model)
    source = {name: model / name for name in checkpoint.files}
    with pytest.raises(UserError) as caught:
        Export(tuple(checkpoint.components)).run({"source": source}, out, progress=False)
    return render(caught.value).replace(str(model), "MODEL")


def rewritten(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = model / "tokenizer/tokenizer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def with_mark(number: int, token: str) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        marks = {token: {"id": token, "ids": [number], "tokens": [token]}}
        single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}]
        document["post_processor"].update(special_tokens=marks, single=single)

    return change


TOKENIZERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no end mark": (
        lambda model: rewritten(model, lambda document: document.update(post_processor=None)),
        "post_processor is null: nothing adds the end mark, which every prompt has to have",
    ),
    "the padding for an end mark": (
        lambda model: rewritten(model, with_mark(0, "<pad>")),
        "the tokenizer ends a text with the token 0, and the text encoder's eos_token_id is 1",
    ),
    "another end mark than the text encoder's": (
        lambda model: edit(model / "text_encoder/config.json", eos_token_id=2),
        "the tokenizer ends a text with the token 1, and the text encoder's eos_token_id is 2",
    ),
    "an end mark beyond the vocabulary": (
        lambda model: rewritten(model, with_mark(5000, "</s>")),
        "the tokenizer gives 5000, and has 163 tokens",
    ),
    "more tokens than the embedding has rows": (
        lambda model: rewritten(model, lambda document: document["model"]["vocab"].append(["▁far", -20.0])),
        "the tokenizer has 164 tokens, and the text encoder's embedding 163 rows",
    ),
    "an added token beyond the embedding": (
        lambda model: rewritten(
            model,
            lambda document: document["added_tokens"].append(
                {**document["added_tokens"][0], "id": 163, "content": "<x>"}
            ),
        ),
        "the tokenizer has 164 tokens, and the text encoder's embedding 163 rows",
    ),
    "no room for a word": (
        lambda model: edit(model / "tokenizer/tokenizer_config.json", model_max_length=1),
        "a text may have 1 token, which is the end mark: no prompt would be heard",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_does_not_fit(model: Path, tmp_path: Path, name: str) -> None:
    damage, message = TOKENIZERS[name]
    damage(model)
    said = exported(model, tmp_path / "out")
    assert message in said
    assert said.startswith("error: MODEL/tokenizer/tokenizer")
