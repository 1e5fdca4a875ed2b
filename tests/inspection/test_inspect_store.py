"""Entries of the store by key, by path, and as blobs; looking changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wanc.artifacts.store import Store
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, EXIT_USAGE, BundleError, UserError, render
from wanc.inspection.find import inspect
from wanc.runtime.safetensors import write as write_safetensors

from .graphs import store_action, tree_digest, write_program

SOURCE = f"sha256:{'5' * 64}"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def store(output: Path) -> Store:
    return Store.open(output / "store")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and the time of its last change."""
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def program_files(folder: Path) -> dict[str, bytes]:
    program = write_program(folder)
    return {"program.json": program.read_bytes(), "model/main.onnx": (folder / "model/main.onnx").read_bytes()}


def test_an_action_says_what_it_was_made_of(store: Store, output: Path) -> None:
    export = store_action(store, "export", {"a": b"123", "b/c": b"4"}, {"source": SOURCE}, depth=2)
    engine = store_action(store, "engine", {}, {"program": tree_digest(export), "source": SOURCE})
    store.set_ref("tiny", [export.key, engine.key])
    store.set_ref("other", [engine.key])
    found = store.root / "blobs/sha256"
    files = [
        {"path": "a", "digest": export.files["a"].digest, "size": 3},
        {"path": "b/c", "digest": export.files["b/c"].digest, "size": 1},
    ]
    for file in files:
        digits = str(file["digest"])[7:]
        file["found"] = str(found / digits[:2] / digits)
    assert inspect(export.key, output) == {
        "kind": "action",
        "path": str(store.root / f"actions/{export.key}.json"),
        "stage": "export",
        "key": export.key,
        "inputs": {"source": {"digest": SOURCE, "stage": None, "key": None}},
        "parameters": {"depth": 2},
        "tools": {"onnx": "1.23.2"},
        "platform": "Linux-x86_64",
        "code": f"sha256:{'c' * 64}",
        "meta": {"seconds": 1.5, "peak_rss_bytes": 2**30},
        "kept_by": ["tiny"],
        "size": 4,
        "files": files,
        "program": None,
    }
    described = inspect(engine.key, output)
    assert described["inputs"]["program"] == {"digest": tree_digest(export), "stage": "export", "key": export.key}
    assert described["kept_by"] == ["other", "tiny"]


def test_the_beginning_of_a_key_is_enough(store: Store, output: Path) -> None:
    record = store_action(store, "export", {}, {})
    for length in (4, 16, 63):
        assert inspect(record.key[:length], output)["key"] == record.key
    assert inspect(str(store.root / f"actions/{record.key}.json"), output) == inspect(record.key, output)


def test_an_ambiguous_beginning_is_refused_with_the_choices(store: Store, output: Path) -> None:
    records: dict[str, list[str]] = {}
    for seed in range(2000):  # of 65,536 beginnings: two of 2,000 keys share one, whatever the hash
        key = store_key(seed)
        records.setdefault(key[:4], []).append(str(seed))
        if len(records[key[:4]]) == 2:
            break
    pair = next(seeds for seeds in records.values() if len(seeds) == 2)
    keys = sorted(store_action(store, "export", {}, {}, seed=int(seed)).key for seed in pair)
    with pytest.raises(UserError) as caught:
        inspect(keys[0][:4], output)
    assert caught.value.exit_code == EXIT_USAGE
    assert str(caught.value) == f"{output / 'store'}: 2 keys begin with {keys[0][:4]}"
    assert caught.value.hint == f"they are {keys[0][:16]}, {keys[1][:16]}"


def store_key(seed: int) -> str:
    from wanc.artifacts.canonical import key_of

    return key_of(
        {
            "schema": 1,
            "stage": "export",
            "code": f"sha256:{'c' * 64}",
            "parameters": {"seed": seed},
            "inputs": {},
            "tools": {"onnx": "1.23.2"},
            "platform": "Linux-x86_64",
        }
    )


def test_an_unknown_key_points_to_the_list(store: Store, output: Path) -> None:
    with pytest.raises(UserError) as caught:
        inspect("abcdef", output)
    assert (caught.value.exit_code, str(caught.value), caught.value.hint) == (
        EXIT_NO_INPUT,
        f"{output / 'store'}: no action's key begins with abcdef",
        "`wanc store ls` lists them",
    )


def test_a_key_without_a_store_points_to_the_option(output: Path) -> None:
    with pytest.raises(UserError) as caught:
        inspect("abcdef", output)
    assert caught.value.hint == "there is no store here: use -o"
    assert not output.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_store_that_may_not_be_read_says_so(store: Store, output: Path) -> None:
    output.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError) as caught:
            inspect("abcdef", output)
    finally:
        os.seteuid(0)
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert render(caught.value) == f"error: {output}/store/actions: cannot be read\ncaused by: Permission denied"


def test_a_path_goes_before_a_key(store: Store, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = store_action(store, "export", {}, {})
    monkeypatch.chdir(tmp_path)
    write_program(tmp_path / record.key[:8])
    assert inspect(record.key[:8], output)["kind"] == "program"


def test_a_stored_program_is_described_from_its_blobs(store: Store, output: Path, tmp_path: Path) -> None:
    record = store_action(store, "export", program_files(tmp_path / "work"), {})
    main = inspect(record.key, output)["program"]["components"]["model"]["graphs"]["main"]
    assert main["operators"] == {"Add": 1}


def test_content_that_is_gone_is_said_to_be_gone(store: Store, output: Path) -> None:
    record = store_action(store, "export", {"a": b"123", "b": b"45"}, {})
    blob = store.path(record.files["a"])
    blob.chmod(0o644)
    blob.write_bytes(b"1")
    described = {file["path"]: file["found"] for file in inspect(record.key, output)["files"]}
    assert described["a"] is None
    assert described["b"] is not None


def test_content_that_was_moved_into_a_bundle_is_found_there(store: Store, output: Path, tmp_path: Path) -> None:
    record = store_action(store, "export", {"a": b"123"}, {})
    moved = store.path(record.files["a"]).rename(tmp_path / "adopted")
    store.relocate(record.files["a"], moved)
    assert inspect(record.key, output)["files"][0]["found"] == str(moved)


def test_a_blob_says_who_names_it_and_what_it_is(store: Store, output: Path, tmp_path: Path) -> None:
    files = program_files(tmp_path / "work")
    export = store_action(store, "export", files, {})
    engine = store_action(store, "engine", {"copy.onnx": files["model/main.onnx"], "text": b"hello"}, {})
    described = inspect(str(store.path(export.files["model/main.onnx"])), output)
    assert described["digest"] == export.files["model/main.onnx"].digest
    assert sorted((entry["stage"], entry["key"], entry["path"]) for entry in described["named_by"]) == [
        ("engine", engine.key, "copy.onnx"),
        ("export", export.key, "model/main.onnx"),
    ]
    assert (described["content"]["kind"], described["content"]["nodes"]) == ("graph", 1)
    assert inspect(str(store.path(export.files["program.json"])), output)["content"]["kind"] == "program"
    assert inspect(str(store.path(engine.files["text"])), output)["content"] is None


def test_looking_changes_nothing(store: Store, output: Path) -> None:
    record = store_action(store, "export", {"a": b"123"}, {})
    store.path(record.files["a"]).chmod(0o644)
    store.path(record.files["a"]).write_bytes(b"damaged")
    damaged = store.root / f"actions/{'0' * 64}.json"
    damaged.write_bytes(b"{")
    before = snapshot(output)
    inspect(record.key, output)
    with pytest.raises(BundleError) as caught:
        inspect("0000", output)
    assert caught.value.exit_code == EXIT_DATA
    assert snapshot(output) == before


def test_a_safetensors_file_is_described(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "some.safetensors"
    write_safetensors(path, {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int64)})
    assert inspect(str(path), tmp_path) == {
        "kind": "tensors",
        "path": str(path),
        "size": path.stat().st_size,
        "weights": {
            "count": 2,
            "parameters": 10,
            "bytes": 56,
            "dtypes": {
                "int64": {"count": 1, "parameters": 4, "bytes": 32},
                "float32": {"count": 1, "parameters": 6, "bytes": 24},
            },
        },
        "tensors": {"b": {"dtype": "int64", "shape": [4]}, "a": {"dtype": "float32", "shape": [2, 3]}},
    }
