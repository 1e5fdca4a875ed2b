"""What a checkpoint says is read, stands at its class's default, or is refused by name until the recipe allows it."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from wanc.errors import CheckpointError
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.models.wan.class_defaults import DEFAULTS, WITHOUT_EFFECT
from wanc.models.wan.configuration import DENOISER, REQUIRED, TEXT_ENCODER, VAE, Field
from wanc.models.wan.layout_diffusers import READ_BESIDES
from wanc.models.wan.scheduler import FIELDS as SCHEDULERS

from .refusals import change, edit, refusal

STEM = "diffusion_pytorch_model"
TINY = Path(__file__).parents[2] / "models" / "tiny-wan"
ALLOW = "hint: if the model can do without, let it pass: `allow: [{}]` under model"

# what the installed classes take


def class_named(name: str) -> Any:
    """A class of diffusers."""
    return getattr(importlib.import_module("diffusers"), name)


PARAMETERS: dict[str, Any] = {
    "WanTransformer3DModel": DENOISER,
    "AutoencoderKLWan": {**VAE, **dict.fromkeys(READ_BESIDES["vae_decoder"])},
    **SCHEDULERS,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_of_a_class_is_known_and_its_default_is_the_classs_own(name: str) -> None:
    """A newer diffusers' key shows here first."""
    own = {
        key: entry.default
        for key, entry in inspect.signature(class_named(name).__init__).parameters.items()
        if key != "self"
    }
    fields, unread = PARAMETERS[name], DEFAULTS[name]
    without_effect = WITHOUT_EFFECT.get(name, frozenset())
    assert own.keys() == {*fields, *unread, *without_effect}
    assert {key: own[key] for key in unread} == dict(unread)
    for key, field in fields.items():
        if isinstance(field, Field) and field.default is not REQUIRED:
            assert (key, field.default) == (key, own[key])


def test_the_text_encoders_defaults_are_its_classs_own() -> None:
    own = transformers.UMT5Config().to_dict()
    known = {*TEXT_ENCODER, *DEFAULTS["UMT5EncoderModel"], *WITHOUT_EFFECT["UMT5EncoderModel"], "eos_token_id"}
    # Of any model of transformers: what its outputs are wrapped in, and what classifiers' labels are called.
    wrapping = {
        "output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward", "id2label", "label2id",
        "problem_type", "_name_or_path",
    }  # fmt: skip
    assert own.keys() - known == wrapping
    for key, value in DEFAULTS["UMT5EncoderModel"].items():
        assert (key, own[key]) == (key, value)
    for key, field in TEXT_ENCODER.items():
        assert field.default is REQUIRED or (key, field.default) == (key, own[key])


def test_the_pipelines_own_settings_are_known() -> None:
    own = inspect.signature(class_named("WanPipeline").__init__).parameters
    parts = {"tokenizer", "text_encoder", "vae", "scheduler", "transformer", "transformer_2"}
    assert own.keys() - {"self", "boundary_ratio"} == parts | DEFAULTS["WanPipeline"].keys()


# keys

CONFIGS = ("transformer", "transformer_2", "vae", "text_encoder")
INDEX = "model_index.json"
UNKNOWN = [
    *((f"{folder}/config.json", "sliding_attention", 4) for folder in CONFIGS),
    ("model_index.json", "is_distilled", True),
    ("scheduler/scheduler_config.json", "use_lcm_sigmas", True),
    ("tokenizer/tokenizer_config.json", "byte_level", False),
    ("transformer/config.json", "rope_theta", 10000.0),
    ("vae/config.json", "clip_output", None),
]


@pytest.mark.parametrize(("file", "key", "value"), UNKNOWN)
def test_a_key_that_nobody_knows(model: Path, file: str, key: str, value: object) -> None:
    document = json.loads((model / file).read_text())
    (model / file).write_text(json.dumps({**document, key: value}))
    assert refusal(model) == (
        f"error: MODEL/{file}: {key} is {json.dumps(value)}, and wanc does not know this key: it may change the model\n"
        f"{ALLOW.format(key)}"
    )
    assert open_checkpoint(model, allowed=(key,)).components == open_checkpoint_without(model, file, key)


def open_checkpoint_without(model: Path, file: str, key: str) -> object:
    document = json.loads((model / file).read_text())
    del document[key]
    (model / file).write_text(json.dumps(document))
    return open_checkpoint(model).components


NOT_DEFAULT = [
    ("vae/config.json", "patch_size", 2, "null", "AutoencoderKLWan"),
    ("text_encoder/config.json", "dense_act_fn", "relu", '"gelu_new"', "UMT5EncoderModel"),
    ("text_encoder/config.json", "is_decoder", True, "false", "UMT5EncoderModel"),
    ("scheduler/scheduler_config.json", "solver_type", "bh1", '"bh2"', "UniPCMultistepScheduler"),
    ("scheduler/scheduler_config.json", "solver_order", 3, "2", "UniPCMultistepScheduler"),
    ("scheduler/scheduler_config.json", "use_karras_sigmas", True, "false", "UniPCMultistepScheduler"),
    ("scheduler/scheduler_config.json", "shift_terminal", 0.1, "null", "UniPCMultistepScheduler"),
    ("scheduler/scheduler_config.json", "lower_order_final", 1, "true", "UniPCMultistepScheduler"),
    ("tokenizer/tokenizer_config.json", "padding_side", "left", '"right"', "tokenizer"),
    ("tokenizer/tokenizer_config.json", "do_lower_case", True, "false", "tokenizer"),
]


@pytest.mark.parametrize(("file", "key", "value", "default", "owner"), NOT_DEFAULT)
def test_a_key_that_is_not_at_its_default(
    model: Path, file: str, key: str, value: object, default: str, owner: str
) -> None:
    edit(model / file, **{key: value})
    assert refusal(model) == (
        f"error: MODEL/{file}: {key} is {json.dumps(value)}; wanc builds {default} alone, as {owner} has it\n"
        f"{ALLOW.format(key)}"
    )
    open_checkpoint(model, allowed=(key,))


SETTINGS = "tokenizer/tokenizer_config.json"
NO_TOKEN = "names {}, which is no token of tokenizer.json"
CONTRADICTIONS = [
    # transformers adds what is named, and gives other ids for it
    (SETTINGS, "mask_token", "triangle", NO_TOKEN.format('"triangle"')),
    (SETTINGS, "pad_token", {"content": "[PAD]", "special": True}, NO_TOKEN.format('"[PAD]"')),
    (SETTINGS, "additional_special_tokens", ["<unk>", "green"], NO_TOKEN.format('"green"')),
    (SETTINGS, "extra_special_tokens", {"x": "green"}, NO_TOKEN.format('"green"')),
    (SETTINGS, "added_tokens_decoder", {"200": {"content": "绿"}}, NO_TOKEN.format(r'"\u7eff"')),
    (SETTINGS, "extra_ids", 5, NO_TOKEN.format('"<extra_id_4>"')),
    (SETTINGS, "eos_token", "<pad>", 'is "<pad>"; it must be "</s>"'),
    (SETTINGS, "tokenizer_class", "CLIPTokenizer", 'is "CLIPTokenizer"; it must be T5Tokenizer'),
    # code of a model's own
    (INDEX, "transformer", ["mine", "WanTransformer3DModel"], 'it must be ["diffusers", "WanTransformer3DModel"]'),
    (INDEX, "tokenizer", ["transformers", "CLIPTokenizer"], 'it must be ["transformers", "T5Tokenizer"]'),
    (INDEX, "tokenizer", [None, None], 'it must be ["transformers", "T5Tokenizer"]'),
]


@pytest.mark.parametrize(("file", "key", "value", "said"), CONTRADICTIONS)
def test_what_contradicts_what_is_built(model: Path, file: str, key: str, value: object, said: str) -> None:
    before = open_checkpoint(model).components
    edit(model / file, **{key: value})
    told = refusal(model)
    assert told.startswith(f"error: MODEL/{file}: {key} ") and said in told and told.endswith(ALLOW.format(key))
    assert open_checkpoint(model, allowed=(key,)).components == before


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (
            "transformer/config.json",
            {"_commit_hash": "0123", "vace_layers": [], "local_attn_size": -1, "causal": False},
        ),
        ("text_encoder/config.json", {"dropout_rate": 0.5, "scalable_attention": True, "torch_dtype": "bfloat16"}),
        ("vae/config.json", {"dropout": 0.1, "scale_factor_temporal": 2, "scale_factor_spatial": 2}),
        (
            "tokenizer/tokenizer_config.json",
            {"added_tokens_decoder": {"0": {"content": "<pad>"}}, "legacy": True, "tokenizer_class": "T5Tokenizer"},
        ),
        ("model_index.json", {"_name_or_path": "Wan-AI/x", "image_encoder": [None, None]}),
    ],
)
def test_what_changes_nothing_passes(model: Path, file: str, changes: dict[str, Any]) -> None:
    before = open_checkpoint(model).components
    edit(model / file, **changes)
    assert open_checkpoint(model).components == before


def test_doubts_are_told_together_and_allowed_together(model: Path) -> None:
    edit(model / "transformer/config.json", gate="a")
    edit(model / "transformer_2/config.json", gate="a")
    edit(model / "scheduler/scheduler_config.json", prediction_type="epsilon", num_train_timesteps=5000)
    assert refusal(model).splitlines() == [
        'error: MODEL/scheduler/scheduler_config.json: prediction_type is "epsilon"; it must be "flow_prediction"',
        "  also MODEL/scheduler/scheduler_config.json: num_train_timesteps is 5000; it must be 1000",
        '  also MODEL/transformer/config.json: gate is "a", and wanc does not know this key: it may change the model',
        '  also MODEL/transformer_2/config.json: gate is "a", and wanc does not know this key: it may change the model',
        ALLOW.format("prediction_type, num_train_timesteps, gate"),
    ]
    open_checkpoint(model, allowed=("gate", "num_train_timesteps", "prediction_type"))


def test_a_name_of_control_characters_stays_on_its_line(model: Path) -> None:
    edit(model / "vae/config.json", **{"a\n\x1b[2J": 1})
    assert refusal(model).splitlines()[0].endswith(r"config.json: a\n\u001b[2J is 1, and wanc does not know this key: "
                                                   "it may change the model")  # fmt: skip


# the scheduler

SCHEDULER = "scheduler/scheduler_config.json"
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize("key", ["prediction_type", "use_flow_sigmas"])
def test_what_a_scheduler_leaves_out_is_as_its_class_has_it(model: Path, key: str) -> None:
    document = json.loads((model / SCHEDULER).read_text())
    del document[key]
    (model / SCHEDULER).write_text(json.dumps(document))
    default = json.dumps(inspect.signature(class_named("UniPCMultistepScheduler").__init__).parameters[key].default)
    assert f"{key} is not given, which means {default}; it must be" in refusal(model)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DPMSolverMultistepScheduler", {**FLOW, "flow_shift": 7.0}),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 7.0}),
        ("UniPCMultistepScheduler", {**FLOW, "flow_shift": 7.0}),
    ],
)  # fmt: skip
def test_schedulers_as_diffusers_saves_them(model: Path, name: str, arguments: dict[str, Any]) -> None:
    class_named(name)(**arguments).save_pretrained(model / "scheduler")
    edit(model / "model_index.json", scheduler=["diffusers", name])
    assert open_checkpoint(model).shift == 7.0


@pytest.mark.parametrize("name", ["LCMScheduler", "DDIMScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_a_scheduler_of_another_class(model: Path, name: str) -> None:
    class_named(name)().save_pretrained(model / "scheduler")
    edit(model / "model_index.json", scheduler=["diffusers", name])
    assert refusal(model) == (
        f"error: MODEL/{SCHEDULER}: the scheduler's class is {name}; a recipe samples as one of "
        f"UniPCMultistepScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler\n"
        f"{ALLOW.format('scheduler')}"
    )
    assert open_checkpoint(model, allowed=("scheduler",)).shift is None


def test_a_scheduler_that_two_files_call_otherwise(model: Path) -> None:
    edit(model / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    assert refusal(model).splitlines()[0] == (
        f"error: MODEL/{SCHEDULER}: the scheduler's class is UniPCMultistepScheduler, and "
        "FlowMatchEulerDiscreteScheduler in model_index.json"
    )


# other models

OTHERS = [
    (name, kind)
    for name, kind in (
        ("WanVACETransformer3DModel", "a VACE model"),
        ("WanAnimateTransformer3DModel", "an Animate model"),
        ("ChronoEditTransformer3DModel", "a ChronoEdit model"),
    )
]


@pytest.mark.parametrize(("name", "kind"), OTHERS)
def test_another_models_keys_under_our_class(model: Path, name: str, kind: str) -> None:
    """Tools that convert checkpoints leave the class as it was."""
    own = {key: entry.default for key, entry in inspect.signature(class_named(name).__init__).parameters.items()}
    ours = inspect.signature(class_named("WanTransformer3DModel").__init__).parameters
    edit(model / "transformer/config.json", **{key: value for key, value in own.items() if key not in ours})
    first = refusal(model)
    assert first.startswith(f"error: MODEL/transformer/config.json: this is {kind}, by its ")
    assert ": not supported yet; today wanc compiles text-to-video" in first


@pytest.mark.parametrize(
    ("file", "key", "value", "kind"),
    [
        ("transformer/config.json", "add_control_adapter", True, "a control model"),
        ("transformer/config.json", "audio_dim", 1024, "a speech-to-video model"),
        (
            "transformer/config.json",
            "quantization_config",
            {"quant_method": "gguf"},
            "a model that is quantised already",
        ),
        ("text_encoder/config.json", "quantization_config", {"bits": 4}, "a model that is quantised already"),
    ],
)
def test_a_key_that_another_model_has(model: Path, file: str, key: str, value: object, kind: str) -> None:
    edit(model / file, **{key: value})
    assert refusal(model) == (
        f"error: MODEL/{file}: this is {kind}, by its {key}: not supported yet; today wanc compiles text-to-video, "
        "from weights in bfloat16, float16 or float32"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("WanVACEPipeline", "a VACE model"),
        ("WanImageToVideoPipeline", "an image-to-video model"),
        ("WanAnimatePipeline", "an Animate model"),
        ("SkyReelsV2DiffusionForcingPipeline", "a diffusion-forcing model"),
        ("WanVideoToVideoPipeline", "a video-to-video pipeline"),
    ],
)
def test_a_pipeline_of_another_model(model: Path, name: str, kind: str) -> None:
    edit(model / "model_index.json", _class_name=name)
    assert refusal(model) == (
        f"error: MODEL/model_index.json: this is {kind}, not supported yet: its class is {name}; wanc reads "
        "WanPipeline checkpoints"
    )


@pytest.mark.parametrize("file", ["transformer/config.json", "model_index.json"])
def test_a_class_of_another_model(model: Path, file: str) -> None:
    kind, name = "a VACE model", "WanVACETransformer3DModel"
    is_index = file == "model_index.json"
    edit(model / file, **({"transformer": ["diffusers", name]} if is_index else {"_class_name": name}))
    subject = "the class of transformer" if is_index else "its class"
    assert refusal(model) == (
        f"error: MODEL/{file}: this is {kind}, not supported yet: {subject} is {name}; "
        "WanTransformer3DModel was expected"
    )


CHUNK_BY_CHUNK = (
    "it makes videos chunk by chunk, and looks back alone\nhint: write `family: wan-causal` under model, and under "
    "runtime what it keeps: `kv_cache: {chunk: 3, …}`"
)


@pytest.mark.parametrize(
    ("file", "changes", "by"),
    [
        ("transformer/config.json", {"local_attn_size": 21}, "local_attn_size"),
        ("transformer_2/config.json", {"num_frame_per_block": 3}, "num_frame_per_block"),
        ("transformer/config.json", {"is_causal": True}, "is_causal"),
        ("transformer/config.json", {"_class_name": "CausalWanModel"}, "class, CausalWanModel"),
        ("model_index.json", {"transformer": ["diffusers", "CausalWanModel"]}, "class, CausalWanModel"),
        ("model_index.json", {"_class_name": "WanCausalDMDPipeline"}, "class, WanCausalDMDPipeline"),
    ],
)
def test_a_causal_model_is_not_taken_for_one_that_sees_all_frames(
    model: Path, file: str, changes: dict[str, Any], by: str
) -> None:
    edit(model / file, **changes)
    assert refusal(model) == f"error: MODEL/{file}: this is a causal model, by its {by}: {CHUNK_BY_CHUNK}"
    assert open_checkpoint(model, family="wan-causal").causal


def test_a_causal_family_is_not_taken_for_granted(model: Path) -> None:
    """Weights of both have the same names: a bidirectional model would make noise of chunks."""
    with pytest.raises(CheckpointError, match="nothing says that this model is causal") as caught:
        open_checkpoint(model, family="wan-causal")
    assert "family: wan" in str(caught.value.hint) and "allow: [family]" in str(caught.value.hint)
    assert open_checkpoint(model, family="wan-causal", allowed=("family",)).causal == {}


def test_a_first_frame_alone_is_not_built_yet(model: Path) -> None:
    edit(model / "transformer/config.json", is_causal=True, independent_first_frame=True)
    assert "that makes its first frame alone, by its independent_first_frame: not built yet" in refusal(model)


@pytest.mark.parametrize("key", ["num_frame_per_block", "sink_size", "local_attn_size"])
@pytest.mark.parametrize("value", ["4", 1.5, -2, [3]], ids=str)
def test_latent_frames_that_are_no_number(model: Path, key: str, value: object) -> None:
    edit(model / "transformer/config.json", **{key: value})
    assert f"{key} is {json.dumps(value)}, and not a number of latent frames" in refusal(model)


def test_an_image_encoder_makes_an_image_to_video_model(model: Path) -> None:
    edit(model / "model_index.json", image_encoder=["transformers", "CLIPVisionModel"])
    assert refusal(model) == (
        "error: MODEL/model_index.json: image-to-video models are not built yet; today wanc compiles text-to-video"
    )


# sizes that two keys say


@pytest.mark.parametrize(
    ("key", "value", "wanted"), [("scale_factor_temporal", 8, "2 or 4"), ("scale_factor_spatial", 16, "2 or 8")]
)
def test_strides_are_those_of_the_decoder(model: Path, key: str, value: int, wanted: str) -> None:
    edit(model / "vae/config.json", **{key: value})
    assert refusal(model) == f"error: MODEL/vae/config.json: {key} is {value}; it must be {wanted}\n{ALLOW.format(key)}"


@pytest.mark.parametrize("value", [[1, 2], None, True, "</s>"])
def test_an_end_mark_that_is_no_token(model: Path, value: object) -> None:
    document = json.loads((model / "text_encoder/config.json").read_text())
    (model / "text_encoder/config.json").write_text(json.dumps({**document, "eos_token_id": value}))
    assert refusal(model).splitlines()[0] == (
        f"error: MODEL/text_encoder/config.json: eos_token_id is {json.dumps(value)}, not one token"
    )


# weights in other forms


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


VAE_FILE = f"vae/{STEM}.safetensors"
SAFETENSORS = "take the same model in safetensors, in bfloat16, float16 or float32"
FORMS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a variant": (
        rename(VAE_FILE, f"vae/{STEM}.fp16.safetensors"),
        f"missing weights: {STEM}.fp16.safetensors is a variant: not supported yet",
        f"take the repository's files without .fp16 in their names, or rename it to {STEM}.safetensors",
    ),
    "a variant in shards": (
        rename(VAE_FILE, f"vae/{STEM}.bf16-00001-of-00002.safetensors"),
        f"missing weights: {STEM}.bf16-00001-of-00002.safetensors is a variant: not supported yet",
        "take the repository's files without .bf16 in their names",
    ),
    "a variant's index": (
        rename(VAE_FILE, f"vae/{STEM}.safetensors.index.fp8.json"),
        f"missing weights: {STEM}.safetensors.index.fp8.json is a variant: not supported yet",
        "take the repository's files without .fp8 in their names",
    ),
    "a pickle": (
        rename(VAE_FILE, f"vae/{STEM}.bin"),
        f"missing weights: {STEM}.bin is a pickle, which can run code when it is read",
        SAFETENSORS,
    ),
    "GGUF": (
        rename(VAE_FILE, "vae/wan-Q4_K_M.gguf"),
        "missing weights: wan-Q4_K_M.gguf is a GGUF file: not supported yet",
        SAFETENSORS,
    ),
    "a LoRA": (
        rename(VAE_FILE, "vae/pytorch_lora_weights.safetensors"),
        "missing weights: pytorch_lora_weights.safetensors is a LoRA, which changes a model and is none: "
        "not supported yet",
        SAFETENSORS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_weights_in_another_form(model: Path, name: str) -> None:
    change_it, message, hint = FORMS[name]
    change_it(model)
    assert refusal(model) == f"error: MODEL/{VAE_FILE}: {message}\nhint: {hint}"


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"GGUF\3\0\0\0" + b"\0" * 100, "this is a GGUF file: not supported yet"),
        (b"PK\3\4" + b"\0" * 10 + b"archive/data.pkl", "this is a pickle, which can run code when it is read"),
        (b"\x80\x02}q\0(X\6\0\0\0weightq\1", "this is a pickle, which can run code when it is read"),
        (b"<!DOCTYPE html><html>", "this is a web page: the download was answered with it"),
        (b'{"error":"Repository not found"}', "this is a JSON document: the download was answered with it"),
        (b"\0" * 4096, "it begins with zeros: is the download complete?"),
    ],
)
def test_another_form_under_our_name(model: Path, data: bytes, hint: str) -> None:
    (model / VAE_FILE).write_bytes(data)
    lines = refusal(model).splitlines()
    assert lines[0] == f"error: MODEL/{VAE_FILE}: not a readable safetensors file"
    assert lines[-1] == f"hint: {hint}"


@pytest.mark.parametrize("length", [0x3C21, 640, 0x7B22])
def test_a_damaged_file_is_not_taken_for_another_form(model: Path, length: int) -> None:
    """The length of its header may begin with any two bytes."""
    (model / VAE_FILE).write_bytes(length.to_bytes(8, "little") + b"{")
    assert "hint" not in refusal(model)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("wan2.2.gguf", "a GGUF file: not supported yet"),
        ("wan2.1_t2v_1.3B_bf16.safetensors", "a model in one file, without its configuration: not supported yet"),
        ("model.ckpt", "a pickle, which can run code when it is read"),
    ],
)
def test_a_file_for_a_folder(tmp_path: Path, file: str, kind: str) -> None:
    (tmp_path / file).write_bytes(b"GGUF")
    assert refusal(tmp_path / file).splitlines()[0] == f"error: MODEL: not a folder, but {kind}"
    assert refusal(tmp_path).splitlines()[0] == f"error: MODEL: not a Wan checkpoint in either layout: {file} is {kind}"


@pytest.mark.parametrize(
    ("dtype", "bits", "words"),
    [("F4", 4, "4-bit"), ("F6_E2M3", 6, "6-bit"), ("C64", 64, "complex"), ("F8_E8M0", 8, "float8")],
)
def test_a_dtype_that_the_format_has_and_wanc_does_not_read(model: Path, dtype: str, bits: int, words: str) -> None:
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
    header = json.dumps({"decoder.conv_in.bias": entry}).encode()
    (model / VAE_FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * bits)
    lines = refusal(model).splitlines()
    assert lines[0].startswith(
        f"error: MODEL/{VAE_FILE}: {words} weights are not read yet: decoder.conv_in.bias has the"
    )
    assert lines[1:] == ["hint: take the same model in bfloat16, float16 or float32"]


def test_a_tensor_in_two_shards(shards: Path) -> None:
    one, other = sorted((shards / "transformer").glob("*.safetensors"))[:2]
    name = sorted(load_file(one))[0]
    save_file({**load_file(other), name: load_file(one)[name] + 1}, other)
    assert refusal(shards) == (
        f"error: MODEL/transformer/{other.name}: holds {name}, which {one.name} holds as well\n"
        "hint: are these shards of one download?"
    )


# the original layout


@pytest.fixture
def original(tmp_path: Path) -> Path:
    from scripts.checkpoints.models import MODELS
    from scripts.make_checkpoint import make

    make(MODELS["tiny"].with_layers(1), "original", tmp_path / "original", seed=1)
    return tmp_path / "original"


@pytest.mark.parametrize(
    ("changes", "message", "names"),
    [
        ({"vace_layers": [0, 2]}, "this is a VACE model, by its vace_layers: not supported yet", None),
        ({"model_type": "i2v"}, 'models of type "i2v" are not built yet', None),
        ({"rope_scaling": 2.0}, "rope_scaling is 2.0, and wanc does not know this key", "rope_scaling"),
    ],
)
def test_keys_of_the_original_layout(original: Path, changes: dict[str, Any], message: str, names: str | None) -> None:
    edit(original / "high_noise_model/config.json", **changes)
    first, *rest = refusal(original).splitlines()
    assert first.startswith(f"error: MODEL/high_noise_model/config.json: {message}")
    assert rest == ([ALLOW.format(names)] if names else [])


@pytest.mark.parametrize(
    ("changes", "by"),
    [({"num_frame_per_block": 3}, "num_frame_per_block"), ({"_class_name": "CausalWanModel"}, "class, CausalWanModel")],
)
def test_a_causal_model_in_the_original_layout(original: Path, changes: dict[str, Any], by: str) -> None:
    file = "high_noise_model/config.json"
    edit(original / file, **changes)
    assert refusal(original) == f"error: MODEL/{file}: this is a causal model, by its {by}: {CHUNK_BY_CHUNK}"


def test_the_models_own_checkpoint_is_without_doubts(tmp_path: Path) -> None:
    assert open_checkpoint(TINY).doubts == ()
    copy = shutil.copytree(TINY, tmp_path / "copy")
    change("transformer/config.json", later=1)(copy)
    assert [doubt.name for doubt in open_checkpoint(copy, allowed=("later",)).doubts] == ["later"]


def test_float8_of_a_whole_transformer_is_told_with_its_file(tmp_path: Path) -> None:
    copy = shutil.copytree(TINY, tmp_path / "copy")
    path = copy / f"transformer/{STEM}.safetensors"
    tensors = load_file(path)
    save_file({name: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for name, t in tensors.items()}, path)
    first, hint = refusal(copy).splitlines()
    assert first.startswith(f"error: MODEL/transformer/{STEM}.safetensors: float8 weights are not read yet: ")
    assert hint == "hint: take the same model in bfloat16, float16 or float32"
