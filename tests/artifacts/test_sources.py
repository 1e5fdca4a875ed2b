"""Digests of source files are remembered exactly as long as nothing about the file has changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from wanc.artifacts import sources
from wanc.artifacts.files import hash_file
from wanc.artifacts.records import Blob
from wanc.artifacts.sources import SETTLE_NS, SourceDigests
from wanc.artifacts.store import Store
from wanc.errors import EXIT_NO_INPUT, UserError
from wanc.runtime import safe_read


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights")
    return path


class Reads:
    """Counts how often a source was read in full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0

        def counting(descriptor: int, on_bytes: safe_read.OnBytes | None = None) -> tuple[str, int]:
            self.count += 1
            return safe_read.sha256_of(descriptor, on_bytes)

        monkeypatch.setattr(sources, "sha256_of", counting)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Files made by a test have settled: the clock says that they are ten minutes old."""
    now = sources.time.time_ns()
    monkeypatch.setattr(sources.time, "time_ns", lambda: now + 600 * 10**9)
    return Reads(monkeypatch)


def test_a_digest_is_remembered_across_processes(store: Store, source: Path, reads: Reads) -> None:
    expected = Blob(*hash_file(source))
    digests = SourceDigests(store)
    assert [digests.blob(source), digests.blob(source)] == [expected] * 2
    assert SourceDigests(store).blob(source) == expected
    assert reads.count == 1


def test_links_lead_to_the_same_memory(store: Store, source: Path, reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    digests = SourceDigests(store)
    assert digests.blob(source) == digests.blob(tmp_path / "link")
    assert reads.count == 1


def test_paranoia_reads_again(store: Store, source: Path, reads: Reads) -> None:
    SourceDigests(store).blob(source)
    SourceDigests(store, paranoid=True).blob(source)
    assert reads.count == 2


@pytest.mark.parametrize("change", ["content", "same size", "replaced", "touched", "mode"])
def test_any_change_reads_again(store: Store, source: Path, reads: Reads, change: str) -> None:
    SourceDigests(store).blob(source)
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    if change == "content":
        source.write_bytes(b"longer weights")
    elif change == "same size":
        source.write_bytes(b"WEIGHTS")
        os.utime(source, ns=times)  # the change time cannot be put back
    elif change == "replaced":
        other = source.with_name("other")
        other.write_bytes(b"WEIGHTS")
        os.utime(other, ns=times)
        other.replace(source)
    elif change == "touched":
        os.utime(source, ns=(0, 0))
    else:
        source.chmod(0o600)
    assert SourceDigests(store).blob(source) == Blob(*hash_file(source))
    assert reads.count == 2


@pytest.mark.parametrize(("age", "remembered"), [(SETTLE_NS, False), (SETTLE_NS + 1, True)])
def test_a_file_must_have_settled(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, age: int, remembered: bool
) -> None:
    status = source.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    monkeypatch.setattr(sources.time, "time_ns", lambda: changed + age)
    SourceDigests(store).blob(source)
    assert (store.root / "sources.json").exists() is remembered


def test_a_file_from_the_future_is_never_remembered(store: Store, source: Path, reads: Reads) -> None:
    os.utime(source, (2**33, 2**33))
    for _ in range(2):
        SourceDigests(store).blob(source)
    assert reads.count == 2


@pytest.mark.parametrize("content", [b"weights and more", b"WEIGHTS", b""])
def test_a_file_that_changes_while_it_is_read(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def slow(descriptor: int, on_bytes: safe_read.OnBytes | None = None) -> tuple[str, int]:
        result = safe_read.sha256_of(descriptor, on_bytes)
        source.write_bytes(content)
        os.utime(source, (1, 1))  # the clock of a file system may be too coarse to show it
        return result

    monkeypatch.setattr(sources, "sha256_of", slow)
    with pytest.raises(UserError, match="changed while it was read"):
        SourceDigests(store).blob(source)
    assert not (store.root / "sources.json").exists()


def test_two_processes_keep_what_the_other_learnt(store: Store, source: Path, reads: Reads, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    first, second = SourceDigests(store), SourceDigests(store)
    first.blob(source)
    second.blob(tmp_path / "other")
    third = SourceDigests(store)
    third.blob(source)
    third.blob(tmp_path / "other")
    assert reads.count == 2


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"1:2:3:4:5":7}', b'{"1:2:3:4:5":"md5:0"}', b"\xff"])
def test_a_damaged_memory_is_forgotten(
    store: Store, source: Path, reads: Reads, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    SourceDigests(store).blob(source)
    (store.root / "sources.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert SourceDigests(store).blob(source) == Blob(*hash_file(source))
    assert "forgetting the digests" in caplog.text
    assert SourceDigests(store).blob(source) == Blob(*hash_file(source))
    assert reads.count == 2


def test_a_missing_source(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        SourceDigests(store).blob(tmp_path / "absent")
    assert caught.value.exit_code == EXIT_NO_INPUT


def test_progress_is_in_bytes(store: Store, source: Path) -> None:
    counted: list[int] = []
    SourceDigests(store).blob(source, counted.append)
    assert sum(counted) == 7
