"""The manifest of a bundle: what it is, what it needs, and every file in it.

A bundle is a directory whose first file, `WANC`, says "wanc-bundle 1", and whose `manifest.json` (RFC 8785 canonical
JSON) lists every other file with its size and SHA-256. The SHA-256 of the manifest's own bytes names the bundle.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from .directory import BundleDirectory, Root, as_directory
from .errors import BundleError
from .safe_read import read_whole
from .strict_json import MAX_BYTES, Fields, JsonObject, JsonValue, parse_object

MARKER = "WANC"
MARKER_LINE = "wanc-bundle 1"
MANIFEST = "manifest.json"
ATTESTATIONS = "attestations"

SCHEMA = "wanc.manifest/1.0"
SEGMENTS = "segments/1"
RANKS = "ranks/1"
"""A graph may be several engine files, executed in order."""
TILES = "tiles/1"
"""Pictures may be decoded in tiles: whole, they would be others, and take more memory than was planned."""
CAUSAL = "causal/1"
"""Videos are made chunk by chunk: at once, they would be noise."""
RELATIVE_POSITIONS = "relative-positions/1"
"""Keys of finished chunks are rotated where they are read: by their places among what is in sight."""
FEATURES = frozenset({SEGMENTS, RANKS, TILES, CAUSAL, RELATIVE_POSITIONS})
"""What `requires` may name: features without which a reader would misread the bundle."""

NOT_CHECKED: Mapping[str, JsonValue] = {"mode": "off"}
"""What `check` says of a bundle that was not compared with its source."""

MAX_FILES = 100_000
MAX_PATH_BYTES = 240
MAX_COMPONENT_BYTES = 100

_OTHER_VERSION = "this bundle was made for another version of wanc"
_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SCHEMA = re.compile(r"wanc\.manifest/(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
# The normal form of PEP 440: one version has one spelling.
_NUMBER = r"(0|[1-9][0-9]{0,9})"
_VERSION = re.compile(
    rf"({_NUMBER}!)?{_NUMBER}(\.{_NUMBER})*((a|b|rc){_NUMBER})?(\.post{_NUMBER})?(\.dev{_NUMBER})?"
    r"(\+[a-z0-9]+(\.[a-z0-9]+)*)?"
)


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle. `sha256` is "sha256:<64 hex>", `size` is in bytes."""

    path: str
    size: int
    sha256: str
    media_type: str
    role: str
    executable: bool


@dataclass(frozen=True)
class Manifest:
    """A manifest of major version 1. `id` is "sha256:<64 hex>" of its bytes; `created` is RFC 3339 in UTC."""

    id: str
    schema: str
    name: str
    version: str
    created: str
    requires: tuple[str, ...]
    targets: tuple[Mapping[str, JsonValue], ...]
    topology: Mapping[str, JsonValue]
    runtime: Mapping[str, JsonValue]
    files: tuple[FileEntry, ...]
    entry: str
    recipe_sha256: str
    parents: tuple[Mapping[str, JsonValue], ...]
    check: Mapping[str, JsonValue]

    @classmethod
    def read(cls, bundle: Root) -> Manifest:
        """The manifest of the bundle in the directory `bundle`.

        Raises BundleError when this is no bundle, or one that this reader does not understand. The other files are
        not looked at: that is what `verify` does.
        """
        directory = as_directory(bundle)
        check_marker(directory)
        return cls.read_beneath(directory)

    @classmethod
    def read_beneath(cls, directory: BundleDirectory) -> Manifest:
        """The manifest in an open directory, whose marker is not looked at. Raises BundleError."""
        data = read_whole(directory.descriptor, MANIFEST, max_bytes=MAX_BYTES, where=str(directory.shown))
        return cls.parse(data, where=f"{directory.shown}/{MANIFEST}")

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Manifest:
        """The manifest with these bytes: `id` is theirs, so what is checked is what was read. Raises BundleError."""
        return _parsed(data, where)


def check_marker(directory: BundleDirectory) -> None:
    """Raises BundleError unless the open directory says that it is a bundle of format 1."""
    where = str(directory.shown)
    marker = read_whole(directory.descriptor, MARKER, max_bytes=1024, where=where).split(b"\n")[0]
    if marker != MARKER_LINE.encode():
        is_other = re.fullmatch(rb"wanc-bundle [0-9]{1,6}", marker) is not None
        raise BundleError(
            f"first line {_short(marker.decode('latin-1'))} is not {MARKER_LINE!r}",
            where=f"{where}/{MARKER}",
            hint=_OTHER_VERSION if is_other else None,
        )


@lru_cache(maxsize=1)
def _parsed(data: bytes, where: str) -> Manifest:
    """A run reads its manifest twice: for what the bundle says that it is for, and to verify it."""
    fields = parse_object(data, where=where)
    _check_schema(fields)
    requires = fields.texts("requires")
    unknown = sorted(set(requires) - FEATURES)
    if unknown:
        names = ", ".join(map(_short, unknown))
        fields.refuse("requires", f"names {names}, which this version does not know", hint=_OTHER_VERSION)
    files = tuple(_file_entry(item) for item in fields.objects("files"))
    check_paths((file.path for file in files), where=where)
    entry = fields.text("entry")
    if entry not in {file.path for file in files}:
        fields.refuse("entry", f"names {_short(entry)}, which is not in files")
    return Manifest(
        id=f"sha256:{hashlib.sha256(data).hexdigest()}",
        schema=fields.text("schema"),
        name=_name(fields),
        version=_matching(fields, "version", _VERSION, "a version in the normal form of PEP 440", 100),
        created=_matching(fields, "created", _TIME, "a time like 2026-01-31T12:00:00Z"),
        requires=tuple(requires),
        targets=tuple(item.values for item in fields.objects("targets")),
        topology=fields.object("topology").values,
        runtime=fields.object("runtime").values,
        files=files,
        entry=entry,
        recipe_sha256=_matching(fields, "recipe_sha256", _DIGEST, "a digest, sha256:<64 hex>"),
        parents=tuple(item.values for item in fields.objects("parents")),
        check=_check(fields),
    )


def check_paths(paths: Iterable[str], *, where: str) -> None:
    """Raises BundleError unless the paths are safe and stay distinct on every file system.

    A path is "/"-separated, at most 240 bytes, of components of at most 100 of `[A-Za-z0-9._-]` that start with
    neither "." nor "-" and hold no "..". No two, nor two of their directories, may differ only in case, and no file
    may be another's directory.
    """
    files: set[str] = set()
    spelling: dict[str, str] = {}  # of every file and directory, by its case-folded form
    directories: set[str] = set()
    for path in paths:
        fault = _path_fault(path)
        if fault:
            raise BundleError(f"path {_short(path)} {fault}", where=where)
        if path in files:
            raise BundleError(f"path {_short(path)} is listed twice", where=where)
        files.add(path)
        if len(files) > MAX_FILES:
            raise BundleError(f"more than {MAX_FILES} files", where=where)
        parents = parents_of(path)
        directories.update(parents)
        for name in (path, *parents):
            if spelling.setdefault(name.casefold(), name) != name:
                raise BundleError(
                    f"path {_short(name)} differs from {spelling[name.casefold()]!r} only in case", where=where
                )
    for path in sorted(files & directories):
        raise BundleError(f"path {_short(path)} is both a file and a directory", where=where)


def is_component(name: str) -> bool:
    """Whether the name may stand between the slashes of a bundle's path."""
    return len(name) <= MAX_COMPONENT_BYTES and ".." not in name and _COMPONENT.fullmatch(name) is not None


def parents_of(path: str) -> list[str]:
    """The directories above a path, outermost first: "a/b/c" gives "a", "a/b"."""
    components = path.split("/")
    return ["/".join(components[:count]) for count in range(1, len(components))]


def _path_fault(path: str) -> str | None:
    if len(path) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    components = path.split("/")
    if not all(is_component(component) for component in components):
        return "may only hold components of A-Z a-z 0-9 . _ - that start with a letter, digit or _ and hold no '..'"
    # Neither can be listed by the manifest: it cannot hold its own digest, and attestations are made after it.
    if path.casefold() == MANIFEST or components[0].casefold() == ATTESTATIONS:
        return "is reserved"
    return None


def _check_schema(fields: Fields) -> None:
    schema = fields.text("schema")
    match = _SCHEMA.fullmatch(schema)
    if not match:
        fields.refuse("schema", f"is {_short(schema)}, not a wanc manifest's")
    if match[1] != "1":
        fields.refuse("schema", f"is {schema!r}, of another major version than {SCHEMA!r}", hint=_OTHER_VERSION)


def _file_entry(fields: Fields) -> FileEntry:
    return FileEntry(
        path=fields.text("path"),
        size=fields.integer("size"),
        sha256=_matching(fields, "sha256", _DIGEST, "a digest, sha256:<64 hex>"),
        media_type=fields.text("mediaType"),
        role=fields.text("role"),
        executable=fields.boolean("executable"),
    )


def _check(fields: Fields) -> JsonObject:
    """How the build was compared with its source. Bundles of an earlier version were not."""
    if "check" not in fields.values:
        return dict(NOT_CHECKED)
    check = fields.object("check")
    if (mode := check.text("mode")) not in ("on", "off"):
        check.refuse("mode", f"is {_short(mode)}, not on or off")
    return check.values


def _name(fields: Fields) -> str:
    name = fields.text("name")
    if not is_component(name):  # it names directories
        fields.refuse("name", f"is {_short(name)}, not a name of letters, digits, '.', '_' and '-'")
    return name


def _matching(fields: Fields, name: str, pattern: re.Pattern[str], wanted: str, max_length: int = 80) -> str:
    text = fields.text(name)
    if len(text) > max_length or not pattern.fullmatch(text):
        fields.refuse(name, f"is {_short(text)}, not {wanted}")
    return text


def _short(text: str) -> str:
    quoted = ascii(text)
    return quoted if len(quoted) <= 80 else f"{quoted[:80]}…"
