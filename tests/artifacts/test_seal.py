"""Sealing: complete or not at all, and the same bytes wherever and however it is done."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from wanc.artifacts import seal as seal_module
from wanc.artifacts.seal import BundleFile, Sealed, seal
from wanc.errors import EXIT_NO_INPUT, BundleError, OutputError, UserError
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

from .builder import RunPython
from .seal_builder import CONTENT, FACTS, files, moving, present


def test_a_sealed_bundle_verifies(destination: Path, tmp_path: Path) -> None:
    (tmp_path / "licence").write_bytes(b"licence")
    sealed = seal(
        destination,
        [*files(), BundleFile("LICENSES/x.txt", tmp_path / "licence", "licence", "text/plain")],
        FACTS,
    )
    assert sealed == Sealed(verify(destination).id or "", destination)
    assert verify(destination).ok
    found = present(destination)
    assert found.pop("manifest.json")
    assert found == {**CONTENT, "LICENSES/x.txt": b"licence", "WANC": b"wanc-bundle 1\n"}
    assert list(destination.parent.iterdir()) == [destination]


def test_the_manifest_says_what_it_was_told(destination: Path) -> None:
    facts = dataclasses.replace(FACTS, parents=[{"uri": "file:///w", "digest": "sha256:1"}])
    sealed = seal(destination, [*files(), BundleFile("a.sh", b"", "script", "text/x-sh", executable=True)], facts)
    manifest = Manifest.read(destination)
    assert manifest.id == sealed.id
    assert (manifest.name, manifest.version, manifest.entry) == ("tiny", "0.1.0", "run.py")
    assert manifest.created == "2026-01-01T00:00:00Z"
    assert manifest.parents == ({"uri": "file:///w", "digest": "sha256:1"},)
    assert manifest.runtime == {"shift": 12}
    assert [file.path for file in manifest.files] == sorted(file.path for file in manifest.files)
    assert {file.path for file in manifest.files if file.executable} == {"a.sh"}


def test_modes_and_times_are_normal(destination: Path, tmp_path: Path) -> None:
    (tmp_path / "private").write_bytes(b"")
    (tmp_path / "private").chmod(0o600)
    extra = [
        BundleFile("copied", tmp_path / "private", "x", "x/x"),
        BundleFile("go.sh", b"", "x", "x/x", executable=True),
        moving(tmp_path / "private", "moved"),
    ]
    seal(destination, [*files(), *extra], FACTS)
    for path in [destination, *destination.rglob("*")]:
        wanted = 0o755 if path.is_dir() or path.name == "go.sh" else 0o644
        assert path.stat().st_mode & 0o7777 == wanted, path
        assert path.stat().st_mtime == FACTS.created, path


def test_the_format_does_not_drift(destination: Path) -> None:
    """This id may change only with the bundle format: readers of every release have it in their tests."""
    assert seal(destination, files(), FACTS).id == GOLDEN_ID


GOLDEN_ID = "sha256:c90e80ea32adc797c7118beba9eb807c79b79426074f462eb0128773c1371b59"

SCRIPT = """
import os, sys
from pathlib import Path
from wanc.artifacts.seal import BundleFacts, BundleFile, seal
os.umask(int(sys.argv[3], 8))
source = Path(sys.argv[2])
names = {f"d{number}/f{number}" for number in range(9)} | {"run.py"}
order = sorted(names) if sys.argv[4] == "sorted" else list(names)
files = [BundleFile(name, source if name < "d5" else name.encode(), "test", "text/plain") for name in order]
facts = BundleFacts(name="tiny", version="1.0", created=0, entry="run.py", recipe_sha256="sha256:" + "0" * 64,
                    topology={name: 1.5 for name in order}, runtime={"b": 1, "a": 2})
print(seal(Path(sys.argv[1]), files, facts).id)
"""


def test_identical_bytes_in_any_environment(tmp_path: Path, run_python: RunPython) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"source")
    environments: list[dict[str, str]] = [
        {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"},
        {"TZ": "America/St_Johns", "LC_ALL": "POSIX", "PYTHONHASHSEED": "2", "PYTHONUTF8": "0"},
    ]
    results: set[tuple[str, ...]] = set()
    for number, environment in enumerate(environments):
        target = f"out{number}/bundle" if number else tmp_path / "absolute/bundle"
        mask, order = ("077", "000", "022")[number], ("sorted", "any", "any")[number]
        source.chmod(0o600 if number else 0o777)
        result = run_python(SCRIPT, target, source, mask, order, **environment)
        assert result.stderr == ""
        bundle = tmp_path / target
        states = [
            f"{path.relative_to(bundle)} {path.stat().st_mode:o} {path.stat().st_mtime_ns} "
            + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
            for path in sorted([bundle, *bundle.rglob("*")])
        ]
        results.add((result.stdout, *states))
    assert len(results) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "name is"),
        ({"version": "one"}, "PEP 440"),
        ({"created": -1}, "SOURCE_DATE_EPOCH"),
        ({"created": 253_402_300_800}, "SOURCE_DATE_EPOCH"),
        ({"entry": "absent.py"}, "not in files"),
        ({"recipe_sha256": "0"}, "digest"),
        ({"requires": ["telepathy/1"]}, "telepathy/1"),
    ],
)
def test_facts_that_no_reader_would_take(destination: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        seal(destination, files(), dataclasses.replace(FACTS, **changes))
    assert message in f"{caught.value} {caught.value.hint}"
    assert not destination.parent.exists()


def test_the_last_second_that_can_be_written(destination: Path) -> None:
    seal(destination, files(), dataclasses.replace(FACTS, created=253_402_300_799))
    assert Manifest.read(destination).created == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize("paths", [["../x"], ["x", "x"], ["x", "X"], ["WANC"], ["manifest.json"], ["attestations/x"]])
def test_paths_that_no_reader_would_take(destination: Path, paths: list[str]) -> None:
    with pytest.raises(BundleError):
        seal(destination, [*files(), *(BundleFile(path, b"", "x", "x/x") for path in paths)], FACTS)
    assert not destination.parent.exists()


def test_a_missing_source(destination: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        seal(destination, [*files(), BundleFile("x", tmp_path / "absent", "x", "x/x")], FACTS)
    assert (caught.value.where, caught.value.exit_code) == (str(tmp_path / "absent"), EXIT_NO_INPUT)
    assert not destination.exists()


def test_links_are_copied_as_what_they_lead_to(destination: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    (tmp_path / "link").symlink_to("blob")
    seal(destination, [*files(), BundleFile("a", tmp_path / "link", "x", "x/x"), moving(tmp_path / "link", "b")], FACTS)
    assert verify(destination).ok
    assert (tmp_path / "blob").exists() and (tmp_path / "link").is_symlink()


def test_moved_files_are_adopted(destination: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    source.chmod(0o444)
    inode = source.stat().st_ino
    seal(destination, [moving(source), *files()], FACTS)
    assert not source.exists()
    assert (destination / "engines/denoiser/weights.safetensors").stat().st_ino == inode
    assert verify(destination).ok


@pytest.mark.parametrize("move", [False, True])
def test_a_file_that_is_not_what_it_must_be_is_not_sealed(destination: Path, tmp_path: Path, move: bool) -> None:
    """Between a stage's end and the seal somebody may have written to it."""
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    file = dataclasses.replace(moving(source), move=move, digest=digest)
    before = seal(destination, [file, *files()], FACTS)
    source.write_bytes(b"WEIGHTS")
    with pytest.raises(UserError, match="changed while the bundle was sealed") as caught:
        seal(destination, [file, *files()], FACTS)
    assert caught.value.where == str(source) and source.read_bytes() == b"WEIGHTS"
    assert verify(destination).id == before.id


def test_a_file_with_another_name_is_copied_not_moved(destination: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    os.link(source, tmp_path / "other")
    seal(destination, [moving(source), *files()], FACTS)
    assert source.exists()
    assert verify(destination).ok


def test_a_file_on_another_file_system_is_copied(
    destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    original = os.rename

    def rename(old: Path, new: Path) -> None:
        if Path(old) == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        original(old, new)

    monkeypatch.setattr(os, "rename", rename)
    seal(destination, [moving(source), *files()], FACTS)
    assert source.exists()
    assert verify(destination).ok


def test_a_sealed_bundle_is_never_taken_apart(destination: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    seal(destination, [moving(source), *files()], FACTS)
    inside = destination / "engines/denoiser/weights.safetensors"
    other = destination.with_name("other")
    seal(other, [moving(inside), *files()], FACTS)
    assert verify(destination).ok and verify(other).ok
    seal(destination, [moving(inside), *files()], FACTS)
    assert verify(destination).ok


def test_sealing_again_gives_the_same_id(destination: Path) -> None:
    assert seal(destination, files(), FACTS) == seal(destination, files()[::-1], FACTS)


@pytest.mark.parametrize("short", [0, 1])
def test_space_is_checked_before_any_work(
    destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    (tmp_path / "big").write_bytes(b"x" * 4096)
    (tmp_path / "weights").write_bytes(b"w" * 10**6)  # moved: takes no space
    asked = [*files(), BundleFile("big", tmp_path / "big", "x", "x/x"), moving(tmp_path / "weights")]
    needed = 4096 * (len(CONTENT) + 1 + 2)
    monkeypatch.setattr("wanc.artifacts.files.free_bytes", lambda _: needed - short)
    if not short:
        seal(destination, asked, FACTS)
        return
    with pytest.raises(OutputError, match=f"{needed} bytes needed, {needed - 1} bytes free"):
        seal(destination, asked, FACTS)
    assert (tmp_path / "weights").exists()
    assert list(destination.parent.iterdir()) == []


def test_progress_reaches_the_total(destination: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    calls: list[tuple[int, int]] = []
    seal(destination, [moving(tmp_path / "weights"), *files()], FACTS, progress=lambda *call: calls.append(call))
    total = sum(map(len, CONTENT.values())) + len(b"weights") + len(b"wanc-bundle 1\n")
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_a_bundle_that_does_not_read_back_is_not_published(
    destination: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    original = seal_module.write_new

    def lying(path: Path, data: bytes, **options: Any) -> None:
        original(path, data.replace(b'"tiny"', b'"tony"'), **options)

    monkeypatch.setattr(seal_module, "write_new", lying)
    with pytest.raises(OutputError, match="does not read back"):
        seal(destination, [moving(tmp_path / "weights"), *files()], FACTS)
    assert not destination.exists()
    assert (tmp_path / "weights").exists()


def test_manifests_are_canonical(destination: Path) -> None:
    seal(destination, files(), FACTS)
    data = (destination / "manifest.json").read_bytes()
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
