"""Whatever the small files of a store hold, it is a miss or a fault of the user's: no crash, and no great cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wanc.artifacts.canonical import canonical
from wanc.artifacts.fsck import check
from wanc.artifacts.gc import clean
from wanc.artifacts.listing import list_store
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import DamagedBlobError, Store
from wanc.errors import UserError

from ..cost import assert_read_or_refused
from .store_builder import commit

NAME = "weights/a.safetensors"
SMALL_FILES = {
    "a record": lambda record: f"actions/{record.key}.json",
    "a note": lambda record: f"located/{record.files[NAME].hex}.json",
    "a ref": lambda record: "refs/tiny",
    "the sources": lambda record: "sources.json",
    "the version": lambda record: "VERSION",
}
fuzz = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Whole texts of anything, and what is there with a piece of it replaced.
CHANGES = st.tuples(
    st.integers(0, 400), st.integers(0, 40), st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
)


def filled(root: Path, elsewhere: Path) -> ActionRecord:
    """A store with one of everything small: a record, a note of where a blob lies, a ref, a remembered digest."""
    store = Store.open(root)
    record = commit(store)
    blob = record.files[NAME]
    elsewhere.write_bytes(store.path(blob).read_bytes())
    (root / "sources.json").write_bytes(canonical({"1:2:3:4:5": blob.digest}))
    store.path(blob).unlink()
    store.relocate(blob, elsewhere)
    store.set_ref("tiny", [record.key])
    return record


def use(root: Path, record: ActionRecord, elsewhere: Path) -> None:
    """All that a build and the verbs of the store do with what is in it."""
    for verb in (list_store, check, lambda path: clean(path, days=1)):
        try_verb(verb, root)
    store = Store.open(root)
    if (found := store.lookup(record.key)) is not None:
        assert found == record
        for blob in found.files.values():
            with suppress(DamagedBlobError):
                store.path(blob)
    SourceDigests(store).blob(elsewhere)


def try_verb(verb: Callable[[Path], object], root: Path) -> None:
    with suppress(UserError):
        verb(root)


@pytest.mark.parametrize("kind", SMALL_FILES)
@fuzz
@given(change=CHANGES)
def test_any_content(quick_path: Path, kind: str, change: tuple[int, int, bytes]) -> None:
    folder = Path(tempfile.mkdtemp(dir=quick_path))
    record = filled(folder / "store", folder / "elsewhere")
    path = folder / "store" / SMALL_FILES[kind](record)
    sound = path.read_bytes()
    start, length, piece = change
    path.write_bytes(sound[:start] + piece + sound[start + length :])
    assert_read_or_refused(lambda: use(folder / "store", record, folder / "elsewhere"))


@pytest.mark.parametrize("kind", SMALL_FILES)
def test_a_file_of_any_size_costs_little(tmp_path: Path, kind: str) -> None:
    record = filled(tmp_path / "store", tmp_path / "elsewhere")
    with (tmp_path / "store" / SMALL_FILES[kind](record)).open("r+b") as file:
        file.truncate(8 * 2**30)  # a hole: no disk is used
    assert_read_or_refused(lambda: use(tmp_path / "store", record, tmp_path / "elsewhere"))


def test_the_fuzz_sees_what_it_should(tmp_path: Path) -> None:
    """Without a change everything is found: a test in which nothing ever is would not be one."""
    record = filled(tmp_path / "store", tmp_path / "elsewhere")
    use(tmp_path / "store", record, tmp_path / "elsewhere")
    store = Store.open(tmp_path / "store")
    assert store.lookup(record.key) == record
    assert store.path(record.files[NAME]) == tmp_path / "elsewhere"
