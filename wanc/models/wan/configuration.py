"""The configuration of each component, checked: diffusers' and transformers' keys, whichever layout they came from.

Only what enters a graph is listed and kept, so that a configuration is the same dictionary from either layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from wanc.errors import CheckpointError
from wanc.models.wan.other_models import NOT_BUILT_YET, refusal_by_keys

Config = Mapping[str, Any]

LARGEST_SIZE = 2**20
MOST_LAYERS = 1000
MOST_LEVELS = 8
MOST_CHANNELS = 1024
REQUIRED = object()


@dataclass(frozen=True)
class Field:
    """One key: what its value must be, in words and as a test, and its value where it may be left out."""

    must_be: str
    holds: Callable[[Any], bool]
    default: Any = REQUIRED


def whole(most: int = LARGEST_SIZE, *, default: Any = REQUIRED, least: int = 1) -> Field:
    """A whole number from `least` to `most`."""
    return Field(f"a whole number from {least} to {most}", lambda value: _is_whole(value, least, most), default)


def one_of(*values: Any, default: Any = REQUIRED) -> Field:
    """One of a few values: the others exist, and are not built."""
    words = " or ".join(json.dumps(value) for value in values)
    return Field(words, lambda value: any(type(value) is type(known) and value == known for known in values), default)


def positive(*, default: Any = REQUIRED) -> Field:
    """A finite number above zero."""
    return Field("a number above 0", lambda value: _is_number(value) and value > 0, default)


def listed(item: Field, most: int) -> Field:
    """A list of at least one and at most so many such values."""
    return Field(
        f"a list of at most {most}, each {item.must_be}",
        lambda value: _is_list(value, most) and all(map(item.holds, value)),
    )


TEXT_ENCODER: Mapping[str, Field] = {
    "d_model": whole(),
    "d_kv": whole(),
    "d_ff": whole(),
    "num_layers": whole(MOST_LAYERS),
    "num_heads": whole(),
    "vocab_size": whole(),
    # Half of the buckets are for either direction, and half of those for single distances.
    "relative_attention_num_buckets": whole(least=4, default=32),
    "relative_attention_max_distance": whole(default=128),
    "layer_norm_epsilon": positive(default=1e-6),
    "feed_forward_proj": one_of("gated-gelu", default="gated-gelu"),
}
DENOISER: Mapping[str, Field] = {
    "patch_size": Field("[1, height, width]", lambda value: _is_patch(value)),
    "num_attention_heads": whole(),
    "attention_head_dim": Field("an even number from 2 to 1024", lambda value: _is_whole(value, 2, 1024, even=True)),
    "in_channels": whole(),
    "out_channels": whole(),
    "text_dim": whole(),
    "ffn_dim": whole(),
    "num_layers": whole(MOST_LAYERS),
    "rope_max_seq_len": whole(),
    "freq_dim": Field("an even number from 2 to 1024", lambda value: _is_whole(value, 2, 1024, even=True), 256),
    "eps": positive(default=1e-6),
    "cross_attn_norm": one_of(True, default=True),
    "qk_norm": one_of("rms_norm_across_heads", default="rms_norm_across_heads"),
    "pos_embed_seq_len": one_of(None, default=None),
}
VAE: Mapping[str, Field] = {
    "base_dim": whole(),
    "z_dim": whole(),
    "dim_mult": listed(whole(1024), MOST_LEVELS),
    "num_res_blocks": whole(64),
    "temperal_downsample": listed(one_of(True, False), MOST_LEVELS),
    "latents_mean": listed(Field("a number", lambda value: _is_number(value)), MOST_CHANNELS),
    "latents_std": listed(positive(), MOST_CHANNELS),
    "in_channels": whole(default=3),
    # Of a decoder with more, the video is not what it gives but made of it.
    "out_channels": one_of(3, default=3),
    "decoder_base_dim": Field("null or a whole number", lambda value: value is None or _is_whole(value), None),
    "attn_scales": Field("[]", lambda value: value == [], []),
}
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "text_encoder": TEXT_ENCODER,
    "denoiser_high": DENOISER,
    "denoiser_low": DENOISER,
    "vae_decoder": VAE,
}


def checked(component: str, document: Config, where: str) -> dict[str, Any]:
    """The component's canonical configuration, with the defaults filled in. `where` names the document.

    Raises CheckpointError for a key that is missing or wrong, and for a model that wanc does not compile yet.
    """
    if unsupported := _unsupported(document):
        raise CheckpointError(unsupported, where=where)
    config = checked_fields(FIELDS[component], document, where)
    if disagreement := _disagreement(config):
        raise CheckpointError(disagreement, where=where)
    return config


def checked_fields(fields: Mapping[str, Field], document: Config, where: str) -> dict[str, Any]:
    """The document's values of these fields. Raises CheckpointError for the first one that is wrong."""
    config: dict[str, Any] = {}
    for key, field in fields.items():
        config[key] = document.get(key, field.default)
        if config[key] is REQUIRED:
            raise CheckpointError(f"has no {key}", where=where)
        if not field.holds(config[key]):
            raise CheckpointError(f"{key} is {shown(config[key])}; it must be {field.must_be}", where=where)
    return config


def shown(value: object) -> str:
    """A value of a JSON document, as JSON, cut to what a line of an error message holds."""
    return _cut(json.dumps(value))


def named(value: object) -> str:
    """The same for what should be a name: a text goes without quotes."""
    return _cut(value) if isinstance(value, str) else shown(value)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _unsupported(document: Config) -> str | None:
    """Why a model of the right class is still one that wanc does not compile yet."""
    if other := refusal_by_keys(document):
        return other
    channels = {document[key] for key in ("in_channels", "out_channels") if isinstance(document.get(key), int)}
    if "num_attention_heads" in document and len(channels) == 2:
        return NOT_BUILT_YET
    if document.get("is_residual"):
        return "the residual VAE of Wan 2.2 5B is not built yet; today wanc compiles the 2.1 VAE of the A14B models"
    return None


def _disagreement(config: Config) -> str | None:
    """What single fields cannot tell: two of them that do not go together."""
    if "relative_attention_num_buckets" in config:
        exact = config["relative_attention_num_buckets"] // 4
        if config["relative_attention_max_distance"] <= exact:
            return f"relative_attention_max_distance must be above {exact}, the distances with a bucket of their own"
    if "dim_mult" in config:
        levels = len(config["dim_mult"])
        if levels < 2 or len(config["temperal_downsample"]) != levels - 1:
            return f"temperal_downsample must have one entry less than dim_mult, which has {levels}"
        for key in ("latents_mean", "latents_std"):
            if len(config[key]) != config["z_dim"]:
                return f"{key} has {len(config[key])} entries; z_dim is {config['z_dim']}"
    return None


def _is_whole(value: object, least: int = 1, most: int = LARGEST_SIZE, *, even: bool = False) -> bool:
    # To Python, true is an int.
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value <= most and not (even and value % 2)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= 2**53 and math.isfinite(value)


def _is_list(value: object, most: int) -> bool:
    return isinstance(value, list) and 0 < len(cast("list[object]", value)) <= most


def _is_patch(value: object) -> bool:
    if not _is_list(value, 3):
        return False
    sizes = cast("list[object]", value)
    return len(sizes) == 3 and _is_whole(sizes[0], 1, 1) and all(_is_whole(size, 1, 1024) for size in sizes[1:])
