"""Whether a bundle's directory holds exactly what its manifest lists: nothing less, nothing else, not one bit changed.

This proves integrity against the manifest, and so against the bundle's id; who made the manifest is a matter of
signatures. Files are opened without following links and hashed from the descriptor that was checked; a run opens them
beneath the same descriptor of the directory (`folder.py`).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .directory import BundleDirectory, Root, as_directory
from .errors import BundleError, VerificationError
from .folder import Identity, VerifiedFolder
from .manifest import (
    ATTESTATIONS,
    MANIFEST,
    MARKER,
    Manifest,
    check_marker,
    is_component,
    parents_of,
)
from .safe_read import Progress, irregularity, read_whole
from .strict_json import parse_object
from .verify_files import check_files

MAX_ATTESTATION_BYTES = 2**20
_MAX_DIRECTORY_DEPTH = 128  # more than 240 bytes of path can hold, and few enough to keep one descriptor for each
LEFTOVERS = {
    r"\.DS_Store|\._.*|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd|__MACOSX": "macOS",
    r"Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information": "Windows",
    r"\.directory|\.Trash-[0-9]+|\.thumbnails": "a Linux desktop",
    r".+~|#.+#|\.#.+|\..+\.sw[a-p]|\.vscode|\.idea": "an editor",
    r"\.nfs[0-9A-Fa-f]+|\.fuse_hidden[0-9A-Fa-f]+|lost\+found": "the file system",
    r"__pycache__": "Python",
    r"\.ipynb_checkpoints": "Jupyter",
    r"\.git|\.gitignore|\.gitattributes|\.svn|\.hg": "version control",
}
"""Who leaves files and folders of such names where people look into them: known by the name, and by nothing else."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")  # DSSE allows both alphabets


@dataclass(frozen=True, order=True)
class Failure:
    """One path of the bundle ("/"-separated, printable) that is not as it should be, and why.

    `leftover` is what would have to be removed where this is nothing but what a desktop or an editor has left there.
    """

    path: str
    reason: str
    leftover: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """All failures, sorted. `manifest` is None when it could not be read, and then nothing else was checked.

    `identities` are those of the files that were found as listed.
    """

    manifest: Manifest | None
    failures: tuple[Failure, ...]
    identities: Mapping[str, Identity] = field(default_factory=dict[str, Identity], repr=False)

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def id(self) -> str | None:
        return self.manifest.id if self.manifest else None

    def remedy(self, bundle: Path) -> str | None:
        """What mends the bundle, with a command, where nothing is wrong but what was left there; otherwise None."""
        if not self.failures or not all(failure.leftover for failure in self.failures):
            return None
        found = list(dict.fromkeys(failure.leftover for failure in self.failures))
        names = " ".join(shlex.quote(str(bundle / path)) for path in found)
        return f"removing what was left there mends the bundle: rm -r {names}"


def verify(bundle: Path, progress: Progress | None = None) -> VerifyReport:
    """Compare the directory `bundle` with its manifest and collect every difference.

    `progress` is called with (bytes done, bytes in total) while files are hashed. Raises BundleError when `bundle` is
    not a directory; whatever is wrong inside it is a failure in the report.
    """
    return _settled(bundle, progress)[1]


def ensure_verified(root: Root, progress: Progress | None = None) -> Manifest:
    """The manifest of a bundle that was just verified in full. Raises what `verified` raises."""
    return verified(root, progress)[0]


def verified(root: Root, progress: Progress | None = None) -> tuple[Manifest, VerifiedFolder]:
    """The manifest of a bundle, and its files, all of which were just compared with it.

    Raises VerificationError naming the first failures, BundleError when there is no manifest that could be read.
    """
    directory, report = _settled(root, progress)
    if report.manifest is None:
        Manifest.read(directory)  # says what is wrong with it, and what to do: it may be for another version
    if report.manifest is None or report.failures:
        shown = [f"{failure.path} {failure.reason}" for failure in report.failures[:5]]
        if len(report.failures) > len(shown):
            shown.append(f"and {len(report.failures) - len(shown)} more")
        raise VerificationError(
            f"the bundle is not what its manifest says: {'; '.join(shown)}",
            where=str(directory.shown),
            hint=report.remedy(directory.shown) or "fetch or build the bundle again; do not run it",
        )
    return report.manifest, VerifiedFolder(directory, report.identities, report.manifest.id)


def _settled(root: Root, progress: Progress | None) -> tuple[BundleDirectory, VerifyReport]:
    """What was verified, and what came of it."""
    while True:
        directory = as_directory(root)
        report = _verify(directory, progress)
        if report.ok or isinstance(root, BundleDirectory) or _is_still(directory.descriptor, root):
            return directory, report
        # Another bundle was put in its place meanwhile, and this one was being removed: look at the other.


def _verify(directory: BundleDirectory, progress: Progress | None) -> VerifyReport:
    root = directory.descriptor
    try:
        manifest = Manifest.read_beneath(directory)
    except BundleError as error:
        return VerifyReport(None, (Failure(MANIFEST, error.message),))
    present, failures = _survey(root, manifest)
    found = dict(zip(manifest.files, check_files(root, manifest.files, present, progress), strict=True))
    identities = {file.path: identity for file, identity in found.items() if not isinstance(identity, str)}
    failures += [Failure(file.path, fault) for file, fault in found.items() if isinstance(fault, str)]
    if MARKER not in {failure.path for failure in failures}:
        try:
            check_marker(directory)
        except BundleError as error:
            failures.append(Failure(MARKER, error.message))
    return VerifyReport(manifest, tuple(sorted(failures)), identities)


def _is_still(directory: int, path: Path) -> bool:
    """Whether the open directory is what one finds under the path, or nothing is."""
    try:
        return os.path.samestat(os.fstat(directory), os.stat(path))
    except FileNotFoundError:
        return True


def _survey(root: int, manifest: Manifest) -> tuple[set[str], list[Failure]]:
    """The listed paths that are there, of whatever kind, and a failure for everything that should not be."""
    listed = {file.path for file in manifest.files}
    directories = {parent for path in listed for parent in parents_of(path)} | {ATTESTATIONS}
    spelling = {path.casefold(): path for path in (*listed, *directories, MANIFEST)}
    present: set[str] = set()
    failures: list[Failure] = []
    for path, status, fault in _walk(root, "", 0):
        is_directory = stat.S_ISDIR(status.st_mode)
        if path not in listed and (leftover := _leftover(path, directories)):
            failures.append(leftover)
        elif fault:
            failures.append(Failure(_shown(path), fault))
        elif path in listed:
            present.add(path)
        elif path.startswith(f"{ATTESTATIONS}/"):
            failures += _check_attestation(root, path, status)
        elif path == MANIFEST or (is_directory and path in directories):
            continue
        else:
            twin = spelling.get(path.casefold())
            reason = f"differs from {twin} only in case" if twin and twin != path else "is not in the manifest"
            failures.append(Failure(_shown(path), reason))
    return present, failures


def _leftover(path: str, directories: set[str]) -> Failure | None:
    """A failure for what is not listed and has a name that a desktop or an editor leaves, or lies below such a one."""
    top = next((name for name in (*parents_of(path), path) if name not in directories), "")
    name = top.rpartition("/")[2]
    who = next((who for pattern, who in LEFTOVERS.items() if re.fullmatch(pattern, name)), None)
    if who is None or _shown(path) != path:
        return None
    reason = f"is not in the manifest: {who} left it there" if path == top else "is not in the manifest"
    return Failure(path, reason, top)


def _walk(directory: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result, str | None]]:
    """(path, status, why it could not be looked into) of everything below an open directory, links not followed."""
    with os.scandir(directory) as listing:
        names = sorted(entry.name for entry in listing)
    for name in names:
        path = prefix + name
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # it went away meanwhile: if it was listed, it will be found missing
        if not stat.S_ISDIR(status.st_mode):
            yield path, status, None
        elif depth == _MAX_DIRECTORY_DEPTH:
            yield path, status, "is nested too deeply"
        else:
            try:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            except OSError as error:
                yield path, status, f"cannot be read: {error.strerror}"
                continue
            try:
                yield path, status, None
                yield from _walk(below, f"{path}/", depth + 1)
            finally:
                os.close(below)


def _check_attestation(root: int, path: str, status: os.stat_result) -> list[Failure]:
    """A file in attestations/ must at least be a DSSE envelope (github.com/secure-systems-lab/dsse, envelope.md)."""
    shown = _shown(path)
    name = path.removeprefix(f"{ATTESTATIONS}/")
    if not is_component(name):  # also whatever lies in a directory of its own
        return [Failure(shown, "is not a name for an attestation")]
    if fault := irregularity(status):
        return [Failure(shown, fault)]
    try:
        data = read_whole(root, path, max_bytes=MAX_ATTESTATION_BYTES, where="")
        envelope = parse_object(data, where=path, max_bytes=MAX_ATTESTATION_BYTES)
        envelope.text("payloadType")
        signatures = envelope.objects("signatures")
        encoded = [envelope.text("payload"), *(signature.text("sig") for signature in signatures)]
    except BundleError as error:
        return [Failure(shown, f"is not a DSSE envelope: {error.message}")]
    if not signatures:
        return [Failure(shown, "is not a DSSE envelope: nobody signed it")]
    if not all(len(text) % 4 == 0 and _BASE64.fullmatch(text) for text in encoded):
        return [Failure(shown, "is not a DSSE envelope: payload or sig is not base64")]
    return []


def _shown(path: str) -> str:
    """The path as text that can be printed: names on disk may hold anything, escape sequences included."""
    return path if path.isascii() and path.isprintable() else ascii(path)[1:-1]
