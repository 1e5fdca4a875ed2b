"""A run ends soon after it is told to, whatever native code is doing, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import onnx
import onnx.parser
import pytest

from wanc.compiler.pipeline import build
from wanc.recipe.load import load

from .conftest import Variant

MOST_SECONDS = 2.0
PRODUCTS = 60
ROWS = 2500
"""Products of that size take a core a second each."""

RECIPE = """\
wanc: 1
name: products
model: {{onnx: m.onnx, example: {{n: 4}}}}
engine: {{kind: {engine}}}
"""

AS_AT_A_TERMINAL = """
import signal

# A shell that starts something in the background has it ignore these two, and what is ignored stays so.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
"""

STRUCK = (
    AS_AT_A_TERMINAL
    + """
import os, sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as run.py does before it loads numpy
sys.path.insert(0, sys.argv[1])
from runtime.session import Session

run = Session.run

def told(session, inputs):
    print("begun", flush=True)
    return run(session, inputs)

Session.run = told
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
"""
)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One graph that keeps its engine busy for minutes, in a single call."""
    folder = tmp_path_factory.mktemp(request.param)
    products = "".join(f"p{i} = MatMul (t{i}, x) t{i + 1} = Tanh (p{i})" for i in range(PRODUCTS))
    graph = f"g (float[n, n] x) => (float[n, n] t{PRODUCTS}) {{t0 = Tanh (x) {products}}}"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}'), folder / "m.onnx")
    (folder / "recipe.yaml").write_text(RECIPE.format(engine=request.param))
    (loaded,) = load(folder / "recipe.yaml")
    return build(loaded, folder / "out", progress=False).bundle


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "in.npz"
    np.savez(path, x=np.ones((ROWS, ROWS), np.float32))
    return path


def begun(
    bundle: Path, inputs: Path, folder: Path, *options: str, wrapper: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A run whose engine is at work."""
    arguments = ["--inputs", inputs, "-o", folder / "out.npz", *options]
    command = [*wrapper, sys.executable, "-c", STRUCK, bundle, *arguments]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(("strike", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_run_ends_while_its_engine_is_at_work(
    bundle: Path, inputs: Path, tmp_path: Path, strike: signal.Signals, code: int
) -> None:
    process = begun(bundle, inputs, tmp_path)
    started = time.monotonic()
    process.send_signal(strike)
    process.communicate(timeout=60)
    assert time.monotonic() - started < MOST_SECONDS
    assert process.returncode == code
    assert os.listdir(tmp_path) == []


BUSY = (
    AS_AT_A_TERMINAL
    + """
import hashlib, os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime.session import Session

def busy(session, inputs):
    print("begun", *Path(sys.argv[-1]).parent.iterdir(), flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

Session.run = busy
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
"""
)


def begun_video(bundle: Path, output: Path) -> subprocess.Popen[str]:
    """A run that has begun its video, and does something that cannot be interrupted."""
    command = [sys.executable, "-c", BUSY, bundle, "--prompt", "x", "-o", output]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline().strip() != "begun", "nothing is there to clean up"
    return process


def assert_ends_at_once(process: subprocess.Popen[str], strike: signal.Signals) -> None:
    started = time.monotonic()
    try:
        process.send_signal(strike)
        process.communicate(timeout=60)
    finally:
        process.kill()  # what does not end would work for hours
    assert time.monotonic() - started < MOST_SECONDS
    assert process.returncode == 128 + strike


@pytest.mark.parametrize("strike", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_video_that_was_begun_goes_away(tiny_bundle: Path, tmp_path: Path, strike: signal.Signals) -> None:
    process = begun_video(tiny_bundle, tmp_path / "out.mp4")
    assert_ends_at_once(process, strike)
    assert os.listdir(tmp_path) == []


MANY_BUSY = (
    AS_AT_A_TERMINAL
    + """
import hashlib, os, sys, threading
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime.mp4 import Mp4Writer
from runtime.session import Session

run, steps, is_written = Session.run, 0, threading.Event()

def busy():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def write(writer, frames):
    is_written.set()
    busy()

def told(session, inputs):
    global steps
    steps += "/step." in session.shown
    if steps > 2 * 2 * 2:  # of two requests with two steps of two branches: this one is the third's
        assert is_written.wait(30)
        print("begun", *Path(sys.argv[-1]).iterdir(), flush=True)
        busy()
    return run(session, inputs)

Mp4Writer.write, Session.run = write, told
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
"""
)
"""Three requests are in flight: the first is being written, the second waits to be, the third is denoised. Nothing of
it can be interrupted."""


@pytest.mark.parametrize(
    "strike",
    [
        signal.SIGTERM,
        signal.SIGINT,
        *(pytest.param(strike, marks=pytest.mark.slow) for strike in (signal.SIGHUP, signal.SIGQUIT)),
    ],
)
def test_many_videos_that_were_begun_go_away(tiny_bundle: Path, tmp_path: Path, strike: signal.Signals) -> None:
    (tmp_path / "prompts.txt").write_text("a\nb\nc\nd\n")
    options = ["--prompts", tmp_path / "prompts.txt", "--frames", "5", "--steps", "2", "--threads", "1"]
    command = [sys.executable, "-c", MANY_BUSY, tiny_bundle, *options, "-o", tmp_path / "videos"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and ".part" in process.stdout.readline(), "nothing is there to clean up"
    assert_ends_at_once(process, strike)
    assert os.listdir(tmp_path) == ["prompts.txt"]


LOADING_BUSY = (
    AS_AT_A_TERMINAL
    + """
import hashlib, os, sys, threading
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime import session

open_backend = session.open_backend

def busy(engine, path, *rest):
    if threading.current_thread().name.startswith("residency") and "vae_decoder" in str(path):
        print("begun", *Path(sys.argv[-1]).parent.iterdir(), flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    return open_backend(engine, path, *rest)

session.open_backend = busy
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
"""
)
"""The decoder is opened ahead, which takes its time, and whoever needs it waits for that."""


@pytest.mark.parametrize(
    "strike",
    [
        signal.SIGTERM,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)),
    ],
)
def test_a_run_ends_while_an_engine_is_opened_ahead(within: Variant, tmp_path: Path, strike: signal.Signals) -> None:
    options = ["--prompt", "x", "--frames", "5", "--steps", "2", "--threads", "1", "--device-budget", "150MiB"]
    command = [sys.executable, "-c", LOADING_BUSY, within.root, *options, "-o", tmp_path / "out.mp4"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline().startswith("begun")
    assert_ends_at_once(process, strike)
    assert os.listdir(tmp_path) == []


def test_many_videos_end_at_once_where_they_can(tiny_bundle: Path, tmp_path: Path) -> None:
    """Threads stop at their next checkpoint; videos that are complete stay, and there is nothing else."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "prompts.txt").write_text("".join(f"A red circle moves {number}.\n" for number in range(1000)))
    options = ["--prompts", tmp_path / "prompts.txt", "--frames", "5", "--steps", "2", "-o", folder]
    command = [sys.executable, "-c", AS_AT_A_TERMINAL + EACH_TOLD, tiny_bundle, *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "finished\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    # A machine that is busy may take longer than the grace that a bundle gives; here it gives more.
    assert time.monotonic() - started < LONG_GRACE_SECONDS, "nothing had to be ended by force"
    assert process.returncode == 143
    made = sorted(os.listdir(folder))
    assert made == [f"{number:04}.mp4" for number in range(1, len(made) + 1)]
    assert 1 <= len(made) < 1000
    for name in made:
        with av.open(str(folder / name)) as video:
            assert sum(1 for _ in video.decode(video=0)) == 5


LONG_GRACE_SECONDS = 30.0
"""Far less than a thousand videos take."""
EACH_TOLD = f"""
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime import ending
from runtime.ticket import Ticket

ending.GRACE_SECONDS = {LONG_GRACE_SECONDS}
finish = Ticket.finish

def told(ticket, result):
    finish(ticket, result)
    print("finished", flush=True)

Ticket.finish = told
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
"""


def test_what_cannot_be_removed_keeps_no_run_from_ending(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    process = begun_video(tiny_bundle, folder / "out.mp4")
    shutil.rmtree(folder)
    folder.write_text("no folder any more")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert time.monotonic() - started < MOST_SECONDS
    assert process.returncode == 143


WITHOUT_THREADS = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=clone3:error=EAGAIN")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
@pytest.mark.parametrize("bundle", ["onnxruntime"], indirect=True)
def test_a_run_ends_where_no_thread_can_be_made(bundle: Path, inputs: Path, tmp_path: Path) -> None:
    """What waits for a signal cannot be there: the kernel ends the process. (OpenVINO does nothing without threads.)"""
    process = begun(bundle, inputs, tmp_path, "--threads", "1", wrapper=WITHOUT_THREADS)
    started = time.monotonic()
    (traced,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(traced), signal.SIGTERM)
    process.communicate(timeout=60)
    assert time.monotonic() - started < MOST_SECONDS
    assert process.returncode in (143, -signal.SIGTERM)
    assert os.listdir(tmp_path) == []


@needs_strace
@pytest.mark.parametrize("wrapper", [("nohup",), ("nohup", *WITHOUT_THREADS)], ids=["threads", "no threads"])
@pytest.mark.parametrize("bundle", ["onnxruntime"], indirect=True)
def test_a_signal_that_is_to_be_ignored_ends_nothing(
    bundle: Path, inputs: Path, tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    """nohup(1) asks for that. Had it an effect, its number would be the process's exit code: it comes first."""
    process = begun(bundle, inputs, tmp_path, "--threads", "1", wrapper=wrapper)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    run = int(children[0]) if "strace" in wrapper else process.pid
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(run, number)
    process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)
    assert os.listdir(tmp_path) == []


@needs_strace
def test_threads_that_cannot_be_made_are_told(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.ones((4, 4), np.float32))
    options = ["--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--threads", "2"]
    command = [*WITHOUT_THREADS, sys.executable, bundle / "run.py", *options]
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 69, finished.stderr
    assert finished.stderr.startswith("error: ") and "Traceback" not in finished.stderr
    assert not (tmp_path / "out.npz").exists()
