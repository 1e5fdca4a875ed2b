"""How long a bundle's build took, as far as the store knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from wanc.artifacts.records import ActionRecord
from wanc.artifacts.refs import build_seconds
from wanc.runtime.strict_json import JsonValue

ID = "sha256:" + "1" * 64
STAGES: Mapping[str, Mapping[str, JsonValue]] = {
    "a" * 64: {"seconds": 1.5, "peak_rss_bytes": 10},
    "b" * 64: {"seconds": 2, "peak_rss_bytes": 10, "id": ID},
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One with a build of two stages."""
    root = tmp_path / "store"
    for name in ("refs", "actions"):
        (root / name).mkdir(parents=True)
    (root / "refs/wan").write_text(json.dumps({"keys": list(STAGES)}))
    for key, meta in STAGES.items():
        write(root, key, meta)
    return root


def write(root: Path, key: str, meta: Mapping[str, JsonValue]) -> None:
    (root / "actions" / f"{key}.json").write_bytes(ActionRecord(key, "stage", {}, {}, meta).to_bytes())


def test_it_is_what_its_stages_took(store: Path) -> None:
    assert build_seconds(store, store.parent / "bundles/wan", ID) == 3.5


def test_of_another_bundle_nothing_is_known(store: Path) -> None:
    assert build_seconds(store, store.parent / "bundles/wan", "sha256:" + "2" * 64) is None
    assert build_seconds(store, store.parent / "bundles/other", ID) is None
    assert build_seconds(store, store.parent / "elsewhere/wan", ID) is None


@pytest.mark.parametrize("seconds", [None, True, "3"])
def test_part_of_it_is_not_told_as_all(seconds: JsonValue, store: Path) -> None:
    write(store, "a" * 64, {"seconds": seconds})
    assert build_seconds(store, store.parent / "bundles/wan", ID) is None
    (store / "actions" / f"{'a' * 64}.json").write_text("{")
    assert build_seconds(store, store.parent / "bundles/wan", ID) is None
