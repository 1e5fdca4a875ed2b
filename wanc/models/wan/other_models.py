"""Models that are of Wan's family and not built yet: what their classes and their keys are called.

They have most tensors in common with the text-to-video model, so that only what the configuration says tells them
apart from one that is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NOT_BUILT_YET = "image-to-video models are not built yet; today wanc compiles text-to-video"
TODAY = "today wanc compiles text-to-video, from weights in bfloat16, float16 or float32"

# A part of a class's name → what models of it are called. The first that fits counts.
CLASSES: Mapping[str, str] = {
    "vace": "a VACE model",
    "animate": "an Animate model",
    "diffusionforcing": "a diffusion-forcing model",
    "skyreels": "a SkyReels model",
    "chronoedit": "a ChronoEdit model",
    "s2v": "a speech-to-video model",
    "speech": "a speech-to-video model",
    "imagetovideo": "an image-to-video model",
    "image2video": "an image-to-video model",
    "i2v": "an image-to-video model",
    "flf2v": "an image-to-video model",
    "videotovideo": "a video-to-video pipeline",
}
# A key that one of these models has → what it is. At null, false, 0, -1 or with nothing in it, it is turned off.
KEYS: Mapping[str, str] = {
    **dict.fromkeys(("vace_layers", "vace_in_channels", "vace_in_dim"), "a VACE model"),
    **dict.fromkeys(
        (
            "motion_encoder_channel_sizes", "motion_encoder_size", "motion_style_dim", "motion_dim",
            "motion_encoder_dim", "face_encoder_hidden_dim", "face_encoder_num_heads", "inject_face_latents_blocks",
            "motion_encoder_batch_size", "use_face_encoder",
        ),
        "an Animate model",
    ),
    "inject_sample_info": "a SkyReels model",
    "rope_temporal_skip_len": "a ChronoEdit model",
    **dict.fromkeys(("add_control_adapter", "add_ref_conv", "control_dim", "has_ref_conv"), "a control model"),
    **dict.fromkeys(
        ("audio_dim", "num_audio_token", "audio_inject_layers", "enable_motioner", "enable_framepack"),
        "a speech-to-video model",
    ),
    **dict.fromkeys(
        ("image_dim", "added_kv_proj_dim", "has_image_input", "image_encoder", "image_processor"),
        "an image-to-video model",
    ),
    **dict.fromkeys(("quantization_config", "compression_config"), "a model that is quantised already"),
}  # fmt: skip


def kind_of_class(name: object) -> str | None:
    """What a class's name says that its models are; None of one that says nothing."""
    text = name.lower() if isinstance(name, str) else ""
    return next((kind for part, kind in CLASSES.items() if part in text), None)


def refusal_by_keys(document: Mapping[str, Any]) -> str | None:
    """Why a configuration is another model's, by the keys that it has; None where it has none of theirs."""
    for key in _turned_on(document):
        if KEYS[key] == KEYS["image_dim"]:
            return NOT_BUILT_YET
        return f"this is {KEYS[key]}, by its {key}: not supported yet; {TODAY}"
    return None


def turned_off(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys of other models that a configuration has and that are turned off in it: they change nothing."""
    return frozenset(key for key in document if key in KEYS and not _is_on(document[key]))


def _turned_on(document: Mapping[str, Any]) -> Iterator[str]:
    return (key for key in KEYS if key in document and _is_on(document[key]))


def _is_on(value: Any) -> bool:
    return bool(value) and value not in (-1, [None, None])
