"""Nothing phones home, and nothing writes where nobody asked it to: seen in the system calls of real processes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import ROOT
from .conftest import MakeVariant
from .test_generic import RECIPE, write_model

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

WANC = [sys.executable, "-m", "wanc"]
# Python's bytecode of wanc's own modules is wherever these lie.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
FEW = ["--prompt", "A red circle moves to the left.", "--frames", "5", "--steps", "2"]
NAMES = "openat,mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,link,linkat,rename,renameat,renameat2"
SOCKET = re.compile(r"\bsocket\((AF_\w+)")
# With -y a directory's descriptor is followed by its path. What never has a name is nowhere.
MADE = re.compile(r'\b(?!openat\([^)]*(?:O_RDONLY|O_TMPFILE))(\w+)\((?:\w+<([^>]*)>, )?"([^"]*)".* = \d')


@dataclass(frozen=True)
class Traced:
    """What a command did, with all that it started: sockets that leave the machine, and the paths that it wrote."""

    code: int
    out: str
    err: str
    sockets: list[str]
    written: list[str]


Trace = Callable[..., Traced]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Runs a command as somebody who has never run anything. No variable says that this is a test: it would hide it."""
    for name in ("home", "tmp", "cwd"):
        (tmp_path / name).mkdir()

    def run(command: Sequence[object], variables: Mapping[str, str] = {}) -> Traced:
        log = tmp_path / "strace"
        options = ["-f", "-y", "--seccomp-bpf", "-qq", "-s", "4096", "-o", log, "-e", f"trace=socket,{NAMES}"]
        finished = subprocess.run(
            list(map(str, ["strace", *options, *command])),
            env={"PATH": os.environ["PATH"], "HOME": f"{tmp_path}/home", "TMPDIR": f"{tmp_path}/tmp", **variables},
            cwd=tmp_path / "cwd",
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        lines = log.read_text(errors="replace").splitlines()
        sockets = [line for line in lines if (found := SOCKET.search(line)) and found[1] != "AF_UNIX"]
        made = [found for line in lines if (found := MADE.search(line))]
        written = [os.path.join(found[2] or "", found[3]) for found in made]
        log.unlink()
        return Traced(
            finished.returncode,
            finished.stdout,
            finished.stderr,
            sockets,
            sorted({path for path in written if not path.startswith(("/dev/", "/proc/"))}),
        )

    return run


def assert_alone(done: Traced, folder: Path) -> None:
    """It spoke to nobody, and wrote nowhere but in the folder of its output."""
    assert done.sockets == [], done.err
    assert [path for path in done.written if not f"{path}/".startswith(f"{folder}/")] == []
    for name in ("home", "tmp", "cwd"):
        assert list((folder.parent / name).iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_run(trace: Trace, tiny_bundle: Path, variant: MakeVariant, folder: Path, engine: str) -> None:
    root = tiny_bundle if engine == "onnxruntime" else variant("openvino", "engine.kind=openvino").root
    done = trace([sys.executable, root / "run.py", *FEW, "-o", folder / "out.mp4"])
    assert (done.code, os.listdir(folder)) == (0, ["out.mp4"]), done.err
    assert_alone(done, folder)


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_build(trace: Trace, folder: Path, engine: str) -> None:
    write_model(folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = trace(
        [*WANC, "build", folder / "recipe.yaml", "--set", f"engine.kind={engine}", "-o", folder / "out"], NO_BYTECODE
    )
    assert done.code == 0, done.err
    assert_alone(done, folder)


@pytest.mark.parametrize(
    "engine", [pytest.param("onnxruntime", marks=pytest.mark.slow), pytest.param("openvino", marks=pytest.mark.long)]
)
def test_a_build_of_a_checkpoint(trace: Trace, tiny_recipe: Path, folder: Path, engine: str) -> None:
    done = trace([*WANC, "build", tiny_recipe, "--set", f"engine.kind={engine}", "-o", folder / "out"], NO_BYTECODE)
    assert done.code == 0, done.err
    assert_alone(done, folder)


def test_a_look_at_the_machine(trace: Trace, folder: Path) -> None:
    done = trace([*WANC, "doctor"], NO_BYTECODE)
    assert "OpenVINO" in done.out
    assert_alone(done, folder)


@pytest.mark.slow
def test_the_tests_themselves(trace: Trace, folder: Path) -> None:
    """Libraries that a test imports of its own accord are told before."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.conftest, onnxruntime, openvino, nncf"
    done = trace([sys.executable, "-c", code], NO_BYTECODE)
    assert done.code == 0, done.err
    assert_alone(done, folder)


def test_a_socket_is_seen(trace: Trace, tmp_path: Path) -> None:
    """The net of these tests has no hole."""
    done = trace([sys.executable, "-c", "import socket, os; socket.socket(); open(os.path.expanduser('~/x'), 'w')"])
    assert len(done.sockets) == 1
    assert done.written == [f"{tmp_path}/home/x"]
