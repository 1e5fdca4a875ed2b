"""Causal bundles whose digests fit and whose manifest lies about what is kept: refused by every door, in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cost import limited
from wanc.runtime.errors import BundleError
from wanc.runtime.kvcache import FORMATS

from .resealed import Change, both, drop, put, seal_again
from .test_lies import doors, with_input, with_output, without_an_output

CACHE = ("runtime", "kv_cache")


def without_an_input(name: str) -> Change:
    def change(_: Path, manifest: Any) -> None:
        step = manifest["topology"]["components"]["denoiser_high"]["step"]
        step["inputs"] = [tensor for tensor in step["inputs"] if tensor["name"] != name]
        for engine in manifest["topology"]["engines"]:
            if (engine["component"], engine["graph"]) == ("denoiser_high", "step"):
                engine["inputs"].remove(name)

    return change


LIES: dict[str, tuple[Change, str]] = {
    "no cache": (drop(*CACHE), "`requires` names 'causal/1', and runtime.kv_cache is missing"),
    "no feature": (put("requires", value=[]), "runtime.kv_cache is there, and `requires` lacks 'causal/1'"),
    "another feature": (put("requires", value=["causal/2"]), "requires names 'causal/2', which this version does not"),
    "no word of it": (both(drop(*CACHE), put("requires", value=[])), "which no graph of denoiser_high gives"),
    "a cache that is a number": (put(*CACHE, value=3), "runtime.kv_cache must be an object"),
    "a cache of nothing": (put(*CACHE, value={}), "runtime.kv_cache.precision is missing"),
    **{
        f"no {key}": (drop(*CACHE, key), f"runtime.kv_cache.{key} is missing")
        for key in ("chunk", "window", "sink", "precision")
    },
    **{
        f"a {key} of {value!r}": (put(*CACHE, key, value=value), f"runtime.kv_cache.{key} must be {said}")
        for key, value, said in (
            ("chunk", 0, "at least 1"),
            ("chunk", 2**50, "at most"),
            ("chunk", True, "an integer"),
            ("chunk", 1.5, "an integer"),
            ("window", 0, "at least 1"),
            ("window", 2**50, "at most"),
            ("sink", -1, "at least 0"),
            ("sink", "1", "an integer"),
        )
    },
    "an unknown precision": (put(*CACHE, "precision", value="fp8"), "precision is 'fp8', not one of fp32, fp16, int8"),
    **{
        f"codes of {precision}": (put(*CACHE, "precision", value=precision), "denoiser_high/step takes past.0.key")
        for precision in FORMATS
        if precision != "fp32"
    },
    "unknown positions": (put(*CACHE, "positions", value="both"), "positions is 'both', not one of absolute, relative"),
    "positions that nobody was told of": (
        put(*CACHE, "positions", value="relative"),
        "positions are relative, and `requires` lacks 'relative-positions/1'",
    ),
    "positions that are others": (
        put("requires", value=["causal/1", "relative-positions/1"]),
        "`requires` names 'relative-positions/1', and positions are not relative",
    ),
    "positions that are not taken": (
        both(put(*CACHE, "positions", value="relative"), put("requires", value=["causal/1", "relative-positions/1"])),
        "denoiser_high/step does not take past_cos, which it is given",
    ),
    "a past that is not taken": (without_an_input("past.0.key"), "past.0.key"),
    "keys that are not left": (without_an_output("denoiser_high", "step", "new.0.key"), "past.0.key"),
    "keys of no heads": (
        with_output("denoiser_high", "step", "new.0.key", shape=[1, "tokens", "heads", 32]),
        "a graph of a causal expert does not say which keys and values it leaves",
    ),
    "keys of more heads": (
        with_output("denoiser_high", "step", "new.0.key", shape=[1, "tokens", 7, 32]),
        "denoiser_high/step takes past.0.key",
    ),
    "a past of one length": (
        with_input("denoiser_high", "step", "past.0.key", shape=[1, 7, 5, 32]),
        "denoiser_high/step takes past.0.key",
    ),
    "a past that is kept by chunks": (
        with_input("denoiser_high", "chunk", "past_bias", per="branch"),
        "denoiser_high/chunk takes past_bias by chunk and branch, not chunk, request",
    ),
    "keys that both branches share": (
        with_input("denoiser_high", "step", "past.0.key", per="request"),
        "denoiser_high/step takes past.0.key by chunk and request, not chunk, branch",
    ),
}


@pytest.fixture(scope="module")
def copy(causal_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(causal_bundle, tmp_path_factory.mktemp("causal-lies") / "bundle"))


@pytest.fixture
def root(copy: Path, causal_bundle: Path) -> Iterator[Path]:
    """A bundle to lie with, of which the manifest alone is changed."""
    yield copy
    shutil.copy2(causal_bundle / "manifest.json", copy / "manifest.json")


@pytest.mark.parametrize("change", [lambda *_: None, drop(*CACHE, "positions")], ids=["as built", "an older bundle"])
def test_without_a_lie_every_door_is_open(change: Change, root: Path, tmp_path: Path) -> None:
    assert json.loads((root / "manifest.json").read_bytes())["requires"] == ["causal/1"]
    seal_again(root, change)
    for name, door in doors(root, tmp_path).items():
        assert door() is not None, name


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_by_every_door(lie: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = LIES[lie]
    seal_again(root, change)
    monkeypatch.setattr("wanc.runtime.executor.Session", None)  # no engine is asked for
    found: set[str] = set()
    for door in doors(root, tmp_path).values():
        with pytest.raises(BundleError) as caught, limited():
            door()
        assert said in caught.value.message, caught.value.message
        assert caught.value.where is not None and caught.value.where.startswith(str(root))
        found.add(str(caught.value))
    assert len(found) == 1, found
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_makes_a_video_at_once_is_not_taken_for_a_causal_one(tiny_bundle: Path, own_copy: Path) -> None:
    """Were it, its chunks would be made without a past."""
    cache = {"chunk": 1, "window": 2, "sink": 1, "precision": "fp32"}
    seal_again(own_copy, both(put(*CACHE, value=cache), put("requires", value=["causal/1"])))
    with pytest.raises(BundleError, match="a graph of a causal expert does not say which keys and values it leaves"):
        doors(own_copy, own_copy.parent)["api"]()
