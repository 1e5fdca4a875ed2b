"""Files that claim gigabytes: refused by what their headers say, with hardly any memory taken."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.builder import Project

MOST_BYTES = 150 * 2**20
GIB = 2**30
SCRIPT = """
import json, sys
from pathlib import Path
from wanc.runtime.arrays import read_arrays
from wanc.runtime.errors import UserError
from wanc.runtime.interface import Input, Interface
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.pipeline import Pipeline

bundle, folder = map(Path, sys.argv[1:])
pipeline = Pipeline.open(bundle, threads=1)
takes = Interface((Input("x", ("rows", 4), "request", "request"), Input("y", (2,), "request", "request")), ())
found = {}
for path in sorted(folder.iterdir()):
    before = peak_rss_bytes()
    try:
        pipeline.load_latents(path) if path.suffix == ".npy" else read_arrays(path, takes)
    except UserError as error:
        found[path.name] = [error.message, peak_rss_bytes() - before]
print(json.dumps(found))
"""


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file of this size, of which only the beginning takes room."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def other_latents(path: Path) -> None:
    sparse(path, header("(1, 16, 1, 8192, 8000)"), 128 + 16 * 8192 * 8000 * 4)


def small_latents_in_a_large_file(path: Path) -> None:
    sparse(path, header("(1, 16, 3, 16, 24)"), 4 * GIB - 1)


def stored(path: Path, name: str, data: bytes, *, claimed: int, offset: int = 0) -> tuple[bytes, bytes]:
    """An entry's own header and its line in the directory, for a member that claims so many bytes."""
    fields = (20, 0, 0, 0, 33, zlib.crc32(data), claimed, claimed, len(name), 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name.encode()
    line = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, offset) + name.encode()
    return local, line


def another_shape(path: Path) -> None:
    """Its three gigabytes are there."""
    size, start = 3 * GIB, header(f"({(3 * GIB - 128) // 4},)")
    local, line = stored(path, "y.npy", start, claimed=size)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(line), len(local) + size, 0)
    with path.open("wb") as file:
        file.write(local + start)
        file.seek(len(local) + size)
        file.write(line + end)


def more_than_the_file(path: Path) -> None:
    size, start = 3 * GIB, header(f"({(3 * GIB - 128) // 16}, 4)")
    local, line = stored(path, "x.npy", start, claimed=size)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(line), len(local) + len(start), 0)
    path.write_bytes(local + start + line + end)


def many_names(path: Path) -> None:
    """A directory of three gigabytes, which is read at once."""
    size = 3 * GIB
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))


def deflated(path: Path) -> None:
    """256 MiB of zeros, for an input of two numbers."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("y.npy", "w") as member:
        member.write(header(f"({2**26},)"))
        for _ in range(256):
            member.write(bytes(2**20))
    path.write_bytes(stream.getvalue())


def nothing_of_much(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", header("(0, 999999999999)"))
        file.writestr("y.npy", header("(2,)") + bytes(8))


def inflated_shortly(path: Path) -> None:
    """A gigabyte for a size that may be chosen, of which a megabyte follows."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    data = packer.compress(header(f"({(GIB - 128) // 16}, 4)") + bytes(2**20)) + packer.flush()
    name, claimed, room = b"x.npy", GIB, 2 * 2**20
    y_local, y_line = stored(path, "y.npy", header("(2,)") + bytes(8), claimed=136, offset=room + 64)
    fields = (20, 0, 8, 0, 33, 0, room, claimed, len(name), 0)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name
    lines = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *fields, 0, 0, 0, 0, 0) + name + y_line
    body = (local + data).ljust(room + 64, b"\0") + y_local + header("(2,)") + bytes(8)
    path.write_bytes(body + lines + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(lines), len(body), 0))


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a.npy": (other_latents, "the latents are float32 [1, 16, 1, 8192, 8000]; 48x32, 5 frames needs float32"),
    "b.npy": (small_latents_in_a_large_file, "not a .npy file of latents"),
    "c.npz": (another_shape, "the input 'x' is missing"),
    "d.npz": (more_than_the_file, "ends before its arrays do"),
    "e.npz": (many_names, "3221225472 bytes of names, more than the 4194304 allowed"),
    "f.npz": (deflated, "the input 'x' is missing"),
    "g.npz": (nothing_of_much, "the array 'x' is float32 [0, 999999999999], more than the 4294967296 bytes allowed"),
    "h.npz": (inflated_shortly, "not a readable .npz file"),
}


@pytest.fixture(scope="module")
def refused(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """The message and the memory that refusing each of them took, in a process in which nothing else is large."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in BOMBS.items():
        make(folder / name)
    command = [sys.executable, "-c", SCRIPT, str(project.result.bundle), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    return json.loads(finished.stdout)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name: str, refused: dict[str, tuple[str, int]]) -> None:
    message, taken = refused[name]
    assert message.startswith(BOMBS[name][1])
    assert taken < MOST_BYTES


def test_what_is_expected_is_read(project: Project, tmp_path: Path) -> None:
    """One array of exactly the shape that the video needs."""
    from wanc.runtime.pipeline import Pipeline

    pipeline = Pipeline.open(project.result.bundle, threads=1)
    expected = pipeline.bundle.latent_shape(pipeline.bundle.shape(None, None))
    np.save(tmp_path / "noise.npy", np.ones(expected, np.float32))
    assert pipeline.load_latents(tmp_path / "noise.npy").shape == expected
