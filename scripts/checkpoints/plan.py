"""What a checkpoint consists of in either layout: which files, and which tensors and documents are in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanc.compiler.weights.tensor_stream import Entry
from wanc.models.wan import layout_original
from wanc.models.wan.layout_diffusers import PARTS
from wanc.models.wan.original_keys import original_names
from wanc.models.wan.stored import WEIGHTS_STEM, Layout
from wanc.models.wan.tensors import shapes

from .models import Config, Model

TINY_WAN = Path(__file__).resolve().parents[2] / "models" / "tiny-wan"
# The VAE is in float32 in the published checkpoints, and computes in it.
DTYPES = {"text_encoder": "BF16", "denoiser_high": "BF16", "denoiser_low": "BF16", "vae_decoder": "F32"}


@dataclass(frozen=True)
class Source:
    """Which tensor of the model an entry of a file is, in canonical terms."""

    component: str
    name: str


@dataclass
class Plan:
    """The files to write, by path relative to the checkpoint."""

    documents: dict[str, Any] = field(default_factory=dict[str, Any])
    weights: dict[str, dict[Entry, Source]] = field(default_factory=dict[str, dict[Entry, Source]])
    tokenizer: str = "tokenizer"

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entries in self.weights.values() for entry in entries)

    def add_component(
        self, component: str, config: Config, path: str, *, names: Layout, shard_bytes: int | None
    ) -> None:
        """Plan a component's weights as the file `path`, or as shards and an index where they are larger than one."""
        expected = shapes(component, config)
        stored = (
            original_names(component, config, expected) if names == "original" else {name: name for name in expected}
        )
        entries = {
            Entry(stored[name], DTYPES[component], shape): Source(component, name) for name, shape in expected.items()
        }
        shards = _shards(entries, shard_bytes)
        if len(shards) == 1:
            self.weights[path] = shards[0]
            return
        stem = path.removesuffix(".safetensors")
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
            self.weights[name] = shard
            weight_map |= {entry.name: Path(name).name for entry in shard}
        total = sum(entry.nbytes for entry in entries)
        self.documents[f"{path}.index.json"] = {"metadata": {"total_size": total}, "weight_map": weight_map}


def plan(model: Model, layout: Layout) -> Plan:
    """The whole checkpoint of a model."""
    return _diffusers(model) if layout == "diffusers" else _original(model)


def write_documents(planned: Plan, model: Model, folder: Path) -> None:
    """Write everything but the weights; the tokenizer is that of models/tiny-wan."""
    for name, document in planned.documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    target = folder / planned.tokenizer
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TINY_WAN / "tokenizer" / "tokenizer.json", target / "tokenizer.json")
    settings = json.loads((TINY_WAN / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = model.text_length
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _diffusers(model: Model) -> Plan:
    planned = Plan()
    configs = model.configs
    index: Config = {
        "_class_name": "WanPipeline",
        "boundary_ratio": model.boundary,
        "expand_timesteps": False,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        **{part.folder: [None, None] for part in PARTS.values()},
    }
    for name, config in configs.items():
        part = PARTS[name]
        library = "transformers" if name == "text_encoder" else "diffusers"
        index[part.folder] = [library, part.class_name]
        naming = (
            {"architectures": [part.class_name], "model_type": "umt5", "dtype": "bfloat16"}
            if name == "text_encoder"
            else {"_class_name": part.class_name}
        )
        planned.documents[f"{part.folder}/config.json"] = {**naming, **config}
        shard_bytes = None if name == "vae_decoder" else model.shard_bytes
        path = f"{part.folder}/{part.stem}.safetensors"
        planned.add_component(name, config, path, names="diffusers", shard_bytes=shard_bytes)
    planned.documents["model_index.json"] = index
    scheduler = json.loads((TINY_WAN / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    planned.documents["scheduler/scheduler_config.json"] = {**scheduler, "flow_shift": model.shift}
    return planned


def _original(model: Model) -> Plan:
    planned = Plan(tokenizer=str(Path(layout_original.TOKENIZER).parent))
    configs = model.configs
    folders = {"denoiser_high": f"{layout_original.HIGH}/", "denoiser_low": f"{layout_original.LOW}/"}
    if model.boundary is None:
        folders = {"denoiser_high": ""}
    for name, folder in folders.items():
        planned.documents[f"{folder}config.json"] = _original_config(configs[name], model.text_length)
        path = f"{folder}{WEIGHTS_STEM}.safetensors"
        planned.add_component(name, configs[name], path, names="original", shard_bytes=model.shard_bytes)
    # As `wanc convert` leaves them beside the pickles.
    for name, path in (("text_encoder", layout_original.TEXT_ENCODER_FILE), ("vae_decoder", layout_original.VAE_FILE)):
        planned.add_component(name, configs[name], path, names="original", shard_bytes=None)
    return planned


def _original_config(config: Mapping[str, Any], text_length: int) -> Config:
    return {
        "_class_name": "WanModel",
        "model_type": "t2v",
        "dim": config["num_attention_heads"] * config["attention_head_dim"],
        "eps": config["eps"],
        "ffn_dim": config["ffn_dim"],
        "freq_dim": config["freq_dim"],
        "in_dim": config["in_channels"],
        "num_heads": config["num_attention_heads"],
        "num_layers": config["num_layers"],
        "out_dim": config["out_channels"],
        "text_dim": config["text_dim"],
        "text_len": text_length,
    }


def _shards(entries: Mapping[Entry, Source], shard_bytes: int | None) -> list[dict[Entry, Source]]:
    """The entries in their order, in as few groups as hold at most so many bytes each."""
    shards: list[dict[Entry, Source]] = [{}]
    for entry, source in entries.items():
        if shard_bytes is not None and shards[-1] and _nbytes(shards[-1]) + entry.nbytes > shard_bytes:
            shards.append({})
        shards[-1][entry] = source
    return shards


def _nbytes(entries: Iterable[Entry]) -> int:
    return sum(entry.nbytes for entry in entries)
