"""The text encoder of Wan, umT5-xxl, at its true size: random weights in int8, executed within a budget of memory."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from scripts.checkpoints.models import MODELS, UMT5_XXL, Config
from scripts.make_checkpoint import make
from scripts.true_scale.disk import cached_bytes, put_out
from wanc.compiler.pipeline import build
from wanc.compiler.stages.worker import call_in_worker
from wanc.models.wan.configuration import checked
from wanc.models.wan.tensors import shapes
from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest
from wanc.runtime.memory import peak_rss_bytes, rss_bytes
from wanc.runtime.model import TEXT_ENCODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

Figures = dict[str, Any]
MIB, GIB = 2**20, 2**30
BUDGET, MOST_RSS = 2560 * MIB, 3 * GIB
"""What engines and values may take, and what all of the process may."""
TOKENS = 512
SPECIAL = 256
"""Rows of the embedding that no word of ours has: real tables have more rows than their tokenizer has pieces."""
RECIPE = """\
wanc: 1
name: text-encoder
model: {source: model}
shapes: [{name: picture, height: 64, width: 64, frames: 5}]
sampling: {steps: 2, shift: 4.0, guidance: {high: 1.0, low: 1.0}}
quantize: {text_encoder: int8-weight, calibrate: {prompts: prompts.txt}}
engine: {check: off}
"""
CALIBRATION = (
    "A young woman in a red coat walks through falling snow.",
    "Two cats in boxing gloves fight on a lit stage.",
)


def make_bundle(folder: Path, encoder: Config = UMT5_XXL, budget: int = BUDGET) -> Path:
    """Build a bundle whose text encoder has these sizes, and all else as small as can be, in `folder`.

    Its tokenizer has a word for nearly every row of the embedding, so that a prompt's rows lie all over the table.
    """
    tiny, source = MODELS["tiny"], folder / "model"
    text = {"denoiser": {**tiny.denoiser, "text_dim": encoder["d_model"]}, "text_length": TOKENS}
    if not source.exists():
        make(replace(tiny, text_encoder=encoder, **text), "diffusers", source, seed=0)
    add_words(source / "tokenizer" / "tokenizer.json", encoder["vocab_size"] - SPECIAL)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "prompts.txt").write_text("\n".join(CALIBRATION))
    (loaded,) = load(folder / "recipe.yaml", [f"runtime.budgets.device={budget}"])
    return build(loaded, folder / "out", progress=True, replace=True).bundle


def add_words(path: Path, count: int) -> None:
    """Let a tokenizer have `count` pieces, those that are missing being words such as `w123`."""
    definition = json.loads(path.read_bytes())
    pieces = definition["model"]["vocab"]
    pieces += [[f"\N{LOWER ONE EIGHTH BLOCK}w{number}", -1.0] for number in range(len(pieces), count)]
    path.write_text(json.dumps(definition, ensure_ascii=False), "utf-8")


def prompt_of(rows: int, tokens: int, seed: int) -> str:
    """So many words, the end mark included, that lie anywhere among the last 99 % of a table's rows."""
    chosen = np.random.default_rng(seed).choice(np.arange(rows // 100, rows - SPECIAL), tokens - 1, replace=False)
    return " ".join(f"w{number}" for number in chosen)


@dataclass(frozen=True)
class Files:
    """Of a bundle: what the text encoder's engines read, and the embedding."""

    weights: list[Path]
    table: Path

    @classmethod
    def of(cls, bundle: Path) -> Files:
        manifest = Manifest.read(bundle)
        paths = [bundle / file.path for file in manifest.files if f"/{TEXT_ENCODER}/" in f"/{file.path}"]
        (table,) = [path for path in paths if "embedding" in path.name]
        return cls([path for path in paths if path != table], table)

    def cached(self) -> tuple[int, int]:
        """Bytes in the cache: of the engines', and of the embedding."""
        return sum(map(cached_bytes, self.weights)), cached_bytes(self.table)


def measured(bundle: Path, prompts: Sequence[str], budget: int) -> Figures:
    """Encode prompts one after the other in a process of its own; in front of each, its files leave the cache."""
    return call_in_worker("encode", _measured, bundle, prompts, budget)


def _measured(bundle: Path, prompts: Sequence[str], budget: int) -> Figures:
    pipeline = Pipeline.open(bundle, threads=0, device_budget=str(budget))
    files = Files.of(bundle)
    figures: Figures = {
        "budget": budget,
        "engine_bytes": sum(path.stat().st_size for path in files.weights),
        "table_bytes": files.table.stat().st_size,
        "started_rss_bytes": rss_bytes(),
        "requests": [_request(pipeline, files, prompt) for prompt in prompts],
    }
    counters = pipeline.executor.residency.counters()
    return {**figures, "peak_bytes": counters["peak_bytes"], "peak_rss_bytes": peak_rss_bytes()}


def _request(pipeline: Pipeline, files: Files, prompt: str) -> Figures:
    put_out([*files.weights, files.table])
    before, loads = files.cached(), pipeline.executor.residency.counters()["loads"]
    started, timer = time.perf_counter(), Timer()
    states, _ = pipeline.encode(Request(prompt), timer)
    seconds = time.perf_counter() - started
    assert np.isfinite(states).all() and states.std() > 0
    weights, table = (now - then for now, then in zip(files.cached(), before, strict=True))
    return {
        "tokens": int(states[0].any(axis=1).sum()),  # behind them are zeros
        "seconds": round(seconds, 2),
        "loads": pipeline.executor.residency.counters()["loads"] - loads,
        "engine_bytes_read": weights,
        "table_bytes_read": table,
    }


def parameters(encoder: Config) -> int:
    """How many numbers the encoder has."""
    checked_config = checked(TEXT_ENCODER, encoder, "the encoder")
    return sum(map(prod, shapes(TEXT_ENCODER, checked_config).values()))
