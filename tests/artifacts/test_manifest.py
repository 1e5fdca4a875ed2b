"""Manifests that are read, and those that are refused before anything is done with them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError
from wanc.runtime import manifest as manifest_module
from wanc.runtime.manifest import Manifest, check_paths, is_component, parents_of

from .builder import CONTENT, encode, manifest_of, write_bundle

steady = settings(derandomize=True, max_examples=150, deadline=None, database=None)


def parsed(**changes: Any) -> Manifest:
    return Manifest.parse(encode(manifest_of(CONTENT, **changes)), where="m")


def refused(**changes: Any) -> BundleError:
    with pytest.raises(BundleError) as caught:
        parsed(**changes)
    return caught.value


def with_file(**changes: Any) -> list[dict[str, Any]]:
    """The list of files, with the second one (run.py stays) changed."""
    files = manifest_of(CONTENT)["files"]
    files[1] = {**files[1], **changes}
    return files


def test_a_bundle_is_read(bundle: Path) -> None:
    manifest = Manifest.read(bundle)
    assert (manifest.name, manifest.version, manifest.entry) == ("tiny", "0.1.0", "run.py")
    assert manifest.id == f"sha256:{hashlib.sha256((bundle / 'manifest.json').read_bytes()).hexdigest()}"
    assert {file.path: file.size for file in manifest.files} == {path: len(data) for path, data in CONTENT.items()}
    assert manifest.targets == ({"backend": "cpu"},)


def test_a_link_to_a_bundle_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    assert Manifest.read(tmp_path / "current") == Manifest.read(bundle)


@pytest.mark.parametrize("field", sorted(manifest_of(CONTENT)))
def test_every_field_is_required_and_typed(field: str) -> None:
    document = manifest_of(CONTENT)
    del document[field]
    with pytest.raises(BundleError, match=f"m: {field} is missing"):
        Manifest.parse(encode(document), where="m")
    assert field in str(refused(**{field: 7}))
    assert field in str(refused(**{field: None}))


@pytest.mark.parametrize("field", ["path", "size", "sha256", "mediaType", "role", "executable"])
def test_every_field_of_a_file_is_required(field: str) -> None:
    files = manifest_of(CONTENT)["files"]
    del files[1][field]
    assert re.search(rf"files\[1\]\.{field} is missing", str(refused(files=files)))


def test_unknown_optional_fields_are_ignored() -> None:
    assert parsed(schema="wanc.manifest/1.99", mood="good", files=with_file(colour="red")).name == "tiny"


@pytest.mark.parametrize("schema", ["wanc.manifest/2.0", "wanc.manifest/0.9", "wanc.manifest/10.0"])
def test_another_major_version_is_refused(schema: str) -> None:
    error = refused(schema=schema)
    assert "another major version" in error.message
    assert error.hint == "this bundle was made for another version of wanc"


@pytest.mark.parametrize("schema", ["", "wanc.manifest/1", "wanc.manifest/1.0 ", "wanc.manifest/01.0", "x/1.0"])
def test_another_schema_is_refused(schema: str) -> None:
    assert "not a wanc manifest's" in refused(schema=schema).message


def test_unknown_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(requires=["kv-cache/9", "telepathy/1"])
    assert "'kv-cache/9', 'telepathy/1'" in error.message
    assert error.hint
    monkeypatch.setattr(manifest_module, "FEATURES", frozenset({"kv-cache/9"}))
    assert parsed(requires=["kv-cache/9"]).requires == ("kv-cache/9",)


@pytest.mark.parametrize("name", ["", "a b", "../a", ".a", "-a", "a..b", "é", "a/b", "a\n", "a" * 101])
def test_bad_names(name: str) -> None:
    assert refused(name=name).message.startswith("name is ")


@pytest.mark.parametrize("version", ["1", "1.0", "0.1.0", "2!1.0", "1.0a1", "1.0rc2.post3.dev4", "1.0+cpu.1"])
def test_versions(version: str) -> None:
    assert parsed(version=version).version == version


@pytest.mark.parametrize("version", ["", "v1", "1.0-rc1", "1..0", "01.0", "1.0+", "1.0 ", "1.0\n", "latest", "1." * 99])
def test_bad_versions(version: str) -> None:
    assert "normal form of PEP 440" in refused(version=version).message


@pytest.mark.parametrize(
    "created", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00Z\n"]
)
def test_bad_times(created: str) -> None:
    assert refused(created=created).message.startswith("created is ")


@pytest.mark.parametrize("digest", ["", "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 63, "sha512:" + "0" * 64])
def test_only_sha256_digests(digest: str) -> None:
    assert "digest" in refused(recipe_sha256=digest).message
    assert "files[1].sha256 is" in refused(files=with_file(sha256=digest)).message


@pytest.mark.parametrize("size", [-1, 1.5, True, "1", 2**53 + 1])
def test_bad_sizes(size: object) -> None:
    assert refused(files=with_file(size=size))


def test_the_entry_must_be_listed() -> None:
    assert "not in files" in refused(entry="other.py").message


def test_errors_about_long_text_stay_short() -> None:
    assert len(str(refused(name="x" * 1_000_000))) < 300


BAD_PATHS = [
    "",
    "/etc/passwd",
    "a//b",
    "a/",
    "./a",
    "../a",
    "a/../b",
    "a..b",
    ".git/x",
    "a/.hidden",
    "-rf",
    "a/-x",
    "a b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "é",
    "a:b",
    "manifest.json",
    "MANIFEST.JSON",
    "attestations/x.json",
    "Attestations/x",
    "attestations",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_bad_paths(path: str) -> None:
    with pytest.raises(BundleError, match=r"^m: path '"):
        check_paths([path], where="m")
    assert refused(files=with_file(path=path))


@pytest.mark.parametrize("path", ["a", "_a", "a/b.c-d_e/0", "a.", "sub/manifest.json", "sub/attestations/x", "WANC"])
def test_good_paths(path: str) -> None:
    check_paths([path], where="m")


def test_path_limits() -> None:
    component = "c" * 100
    check_paths([component], where="m")
    with pytest.raises(BundleError):
        check_paths([component + "c"], where="m")
    check_paths([f"{component}/{component}/{'c' * 38}"], where="m")
    with pytest.raises(BundleError, match="longer than 240 bytes"):
        check_paths([f"{component}/{component}/{'c' * 39}"], where="m")


def test_file_count_limit() -> None:
    paths = [f"d{number % 100}/{number}" for number in range(100_000)]
    check_paths(paths, where="m")
    with pytest.raises(BundleError, match="more than 100000 files"):
        check_paths([*paths, "one-more"], where="m")


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["a", "a"], "listed twice"),
        (["a", "A"], "only in case"),
        (["x/a", "X/b"], "only in case"),
        (["x", "X/b"], "only in case"),
        (["a", "a/b"], "both a file and a directory"),
        (["a/b/c", "a/b"], "both a file and a directory"),
    ],
)
def test_paths_stay_distinct(paths: list[str], reason: str) -> None:
    for order in (paths, paths[::-1]):
        with pytest.raises(BundleError, match=reason):
            check_paths(order, where="m")


@steady
@given(st.lists(st.text("aA._-/é\\ \x00", max_size=12), max_size=6))
def test_accepted_paths_are_safe(paths: list[str]) -> None:
    try:
        check_paths(paths, where="m")
    except BundleError:
        return
    for path in paths:
        assert not Path(path).is_absolute()
        assert os.path.normpath(path) == path
        assert all(is_component(component) and component[0] not in ".-" for component in path.split("/"))
    names = {name for path in paths for name in (path, *parents_of(path))}
    assert len({name.casefold() for name in names}) == len(names)


def test_parents() -> None:
    assert parents_of("a/b/c") == ["a", "a/b"]
    assert parents_of("a") == []


@steady
@given(st.data())
def test_a_damaged_manifest_is_read_or_refused(data: st.DataObject) -> None:
    text = bytearray(encode(manifest_of(CONTENT)))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert Manifest.parse(bytes(text), where="m").id == f"sha256:{hashlib.sha256(text).hexdigest()}"
    except BundleError as error:
        assert str(error).startswith("m")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@steady
@given(st.sampled_from(sorted(manifest_of(CONTENT))), json_like)
def test_a_field_of_any_type_is_read_or_refused(field: str, value: object) -> None:
    try:
        parsed(**{field: value})
    except BundleError as error:
        assert str(error).startswith("m")


def test_manifest_size_limit(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes().ljust(16 * 2**20))
    Manifest.read(bundle)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"manifest.json: larger than the 16777216 bytes allowed"):
        Manifest.read(bundle)


@pytest.mark.parametrize(
    "line", [b"", b"wanc-bundle 1 ", b"wanc-bundle 1\r", b"WANC-BUNDLE 1", b"#!/bin/sh", b"\xff" * 900]
)
def test_the_first_line_of_the_marker(bundle: Path, line: bytes) -> None:
    (bundle / "WANC").write_bytes(line + b"\n")
    with pytest.raises(BundleError, match=r"WANC: first line .* is not 'wanc-bundle 1'") as caught:
        Manifest.read(bundle)
    assert caught.value.hint is None


def test_another_format_says_so(bundle: Path) -> None:
    (bundle / "WANC").write_bytes(b"wanc-bundle 2\n")
    with pytest.raises(BundleError) as caught:
        Manifest.read(bundle)
    assert caught.value.hint == "this bundle was made for another version of wanc"


def test_marker_size_limit(bundle: Path) -> None:
    (bundle / "WANC").write_bytes(b"wanc-bundle 1\n".ljust(1024))
    Manifest.read(bundle)
    (bundle / "WANC").write_bytes(b"wanc-bundle 1\n".ljust(1025))
    with pytest.raises(BundleError, match="larger than the 1024 bytes"):
        Manifest.read(bundle)


def _link(path: Path) -> None:
    path.rename(path.parent.parent / "outside")
    path.symlink_to(path.parent.parent / "outside")


def _hard_link(path: Path) -> None:
    os.link(path, path.parent.parent / "outside")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", ["WANC", "manifest.json"])
@pytest.mark.parametrize("spoil", [_link, _hard_link, _fifo, _directory, _remove])
def test_only_regular_files_are_read(bundle: Path, name: str, spoil: Callable[[Path], None]) -> None:
    spoil(bundle / name)
    with pytest.raises(BundleError, match=re.escape(f"{bundle}/{name}: ")) as caught:
        Manifest.read(bundle)
    assert caught.value.exit_code == (EXIT_NO_INPUT if spoil is _remove else EXIT_DATA)


def test_not_a_directory(bundle: Path) -> None:
    for path in (bundle / "absent", bundle / "WANC"):
        with pytest.raises(BundleError, match="cannot open the bundle") as caught:
            Manifest.read(path)
        assert caught.value.exit_code == EXIT_NO_INPUT


def test_the_id_is_of_the_bytes_not_of_the_meaning(tmp_path: Path) -> None:
    first, second = write_bundle(tmp_path / "1"), write_bundle(tmp_path / "2")
    (second / "manifest.json").write_bytes((second / "manifest.json").read_bytes() + b"\n")
    assert Manifest.read(first).files == Manifest.read(second).files
    assert Manifest.read(first).id != Manifest.read(second).id
