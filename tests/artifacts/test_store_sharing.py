"""Opening a store, and using one from several processes: nothing is computed twice at once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanc.artifacts.locks import held
from wanc.artifacts.store import Store
from wanc.errors import EXIT_IO, OutputError, UserError

from .builder import ROOT


def test_opening_sweeps_what_the_dead_left(store: Store) -> None:
    (store.root / "tmp/dead/out").mkdir(parents=True)
    (store.root / "tmp/dead/.lock").write_bytes(b"")
    with store.workdir() as alive:
        Store.open(store.root)
        assert list((store.root / "tmp").iterdir()) == [alive]


def test_a_store_of_another_version_is_left_alone(store: Store) -> None:
    (store.root / "VERSION").write_text("wanc-store 2\n")
    with pytest.raises(UserError, match="says 'wanc-store 2', not 'wanc-store 1'") as caught:
        Store.open(store.root)
    assert caught.value.hint


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_bytes(b"")
    with pytest.raises(UserError, match="neither empty nor a store"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_creation_is_completed(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    Store.open(tmp_path)
    assert (tmp_path / "VERSION").read_text() == "wanc-store 1\n"


@pytest.mark.parametrize("name", ["file/store", "file"])
def test_where_no_store_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError) as caught:
        Store.open(tmp_path / name)
    assert caught.value.exit_code == EXIT_IO


@pytest.mark.parametrize(("kind", "warned"), [("nfs4", True), ("cifs", True), ("ext4", False)])
def test_a_network_file_system_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, warned: bool
) -> None:
    root = tmp_path / "store"
    original = Path.read_text

    def mounts(path: Path, *arguments: str, **named: str) -> str:
        if str(path) == "/proc/self/mounts":
            return f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\nproc /proc proc rw 0 0\n"
        return original(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", mounts)
    with caplog.at_level(logging.WARNING):
        Store.open(root)
    assert ("let only one machine use it" in caplog.text) is warned


def test_sessions_are_shared_and_exclude_a_cleaning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")
    gate = store.root / "locks/store"
    with store.session(), Store.open(store.root).session(), pytest.raises(UserError), held(gate):
        pass
    with held(gate), pytest.raises(UserError), store.session():
        pass


BUILD = """
import sys
from pathlib import Path
from wanc.artifacts.canonical import key_of
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.artifacts.store import Store
store = Store.open(Path(sys.argv[1]))
document = {"stage": "slow"}
key = key_of(document)
say = lambda word: print(word, flush=True)
with store.session():
    record = store.lookup(key)
    with store.action_lock(key, on_wait=lambda line: say("waiting")):
        record = store.lookup(key)
        if record is None:
            say("computing")
            sys.stdin.readline()
            with store.workdir() as workdir:
                (workdir / "out").mkdir()
                (workdir / "out/result").write_bytes(b"42")
                record = store.commit(key, stage="slow", document=document, tree=workdir / "out", meta={})
            say("computed")
    say(store.path(record.files["result"]).read_text())
"""


def test_two_processes_on_one_key_compute_once(store: Store) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, store.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    with start() as first:
        assert first.stdout and first.stdout.readline() == "computing\n"
        with start() as second:
            assert second.stdout and second.stdout.readline() == "waiting\n"
            out, _ = first.communicate("go\n", timeout=60)
            assert out == "computed\n42\n"
            out, _ = second.communicate(timeout=60)
            assert out == "42\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_killed_computation_is_done_by_the_one_who_waited(store: Store) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILD, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout and first.stdout.readline() == "computing\n"
        first.kill()
        first.wait(60)
    second = subprocess.run(command, input="go\n", capture_output=True, text=True, env=environment, timeout=60)
    assert second.stdout == "computing\ncomputed\n42\n"
    assert second.stderr == ""


def test_ordinary_use_imports_nothing_heavy() -> None:
    script = (
        "import sys, wanc.artifacts.seal, wanc.artifacts.sources, wanc.artifacts.why, wanc.runtime.verify;"
        "print([name for name in ('torch', 'onnx', 'numpy', 'yaml', 'pydantic') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n"
