"""How much is said: --quiet, --verbose and --log-file, of real commands on pipes and on a terminal."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wanc import cli
from wanc.log_file import LogFile
from wanc.runtime.manifest import Manifest
from wanc.runtime.progress import Bars, ProgressBar
from wanc.runtime.verify import verify

from .conftest import Wanc
from .test_cli import VERBS, verbs

SPEAKING = {("build",), ("plan",), ("bench",), ("run",), ("verify",), ("report",), ("store", "fsck"), ("store", "gc")}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


def said(log: Path) -> list[str]:
    """The lines of a log, each of which is whole and has its time."""
    data = log.read_bytes()
    assert data.endswith(b"\n")
    lines = data.decode().splitlines()
    assert all(re.match(rf"{TIME} ", line) for line in lines), lines
    return [line.partition(" ")[2] for line in lines]


@pytest.fixture
def output(tiny_bundle: Path) -> Path:
    return tiny_bundle.parents[1]


def test_the_verbs_that_speak_have_one_list_of_options() -> None:
    def flags(path: tuple[str, ...]) -> set[str]:
        command = typer.main.get_command(cli.app)
        for word in path:
            command = command.commands[word]  # type: ignore[attr-defined]
        return {flag for parameter in command.params for flag in parameter.opts}

    voices = {"-q", "--quiet", "-v", "--verbose", "--log-file"}
    assert {path for path in VERBS if voices <= flags(path)} == SPEAKING
    assert not any(voices & flags(path) for path in VERBS if path not in SPEAKING)
    assert {*verbs(typer.main.get_command(cli.app))} == {*VERBS}


def test_help_has_an_example_of_a_log(wanc: Wanc) -> None:
    assert "--log-file build.log" in " ".join(wanc("build", "--help").out.split())


def test_quiet_says_the_result_alone(wanc: Wanc, tiny_recipe: Path, output: Path, tiny_bundle: Path) -> None:
    finished = wanc("build", tiny_recipe, "-o", output, "-q")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out == f"{tiny_bundle}  {Manifest.read(tiny_bundle).id}\n"
    finished = wanc("verify", tiny_bundle, "--quiet")
    assert (finished.out, finished.err) == (f"verified {Manifest.read(tiny_bundle).id}\n", "")


def test_quiet_says_errors(wanc: Wanc) -> None:
    finished = wanc("build", "absent.yaml", "-q")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == "error: absent.yaml: there is no file absent.yaml\nhint: check the path\n"


def test_verbose_says_why_a_stage_runs_where_and_what_it_took(wanc: Wanc, tiny_recipe: Path, output: Path) -> None:
    changed = ("--set", "name=said", "--set", "sampling.steps=3")
    finished = wanc("build", tiny_recipe, "-o", output, *changed, "-v")
    lines = finished.err.splitlines()
    assert finished.code == 0
    reasons = lines[lines.index("tables: runs, because of") :]
    assert any(
        line.startswith("  parameters.timesteps[") for line in reasons[1 : reasons.index("seal: runs, because of")]
    )
    assert any(re.fullmatch(rf"tables: works in {output}/store/tmp/\w+", line) for line in lines)
    assert any(re.fullmatch(r"tables: \d+\.\d s, peak \d+ MiB", line) for line in lines)
    assert any(line.endswith(f"; the store is {output}/store") for line in lines)
    names = ["denoiser_high", "denoiser_low", "text_encoder", "vae_decoder"]
    assert [line for line in lines if line.startswith("compile")] == [f"compile {name}/0: cached" for name in names]


def test_verbose_and_json_do_not_mix(wanc: Wanc, tiny_recipe: Path, output: Path) -> None:
    finished = wanc("build", tiny_recipe, "-o", output, "--json", "-v")
    assert json.loads(finished.out)["stages"][4]["label"] == "compile denoiser_high/0"
    assert "export: cached" in finished.err.splitlines()


def test_both_are_refused(wanc: Wanc) -> None:
    finished = wanc("verify", "bundle", "-q", "-v")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == "error: --quiet and --verbose exclude each other\nhint: give one of them\n"


@pytest.mark.parametrize("flags", [(), ("-q",), ("--json",)], ids=" ".join)
def test_the_log_has_everything_whatever_is_shown(
    wanc: Wanc, tiny_recipe: Path, output: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    log = tmp_path / "build.log"
    finished = wanc("build", tiny_recipe, "-o", output, *flags, "--log-file", log)
    lines = said(log)
    assert lines[0].startswith("begins: wanc build ")
    assert "export: cached" in lines and lines[-1] == "ends well"
    assert lines[-2] == finished.out.rstrip("\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o644 & ~_umask()


def test_a_log_is_continued_and_an_unfinished_line_ended(wanc: Wanc, tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("2026-01-01T00:00:00.000+00:00 a line that was c")
    wanc("verify", tiny_bundle, "--log-file", log)
    wanc("verify", tmp_path, "--log-file", log)
    lines = said(log)
    assert lines[0] == "a line that was c"
    assert [line.partition(":")[0] for line in lines if line.startswith(("begins", "ends"))] == [
        "begins", "ends well", "begins", "ends with exit code 1",
    ]  # fmt: skip
    assert "manifest.json: is missing" in lines, "errors are in it"


def test_errors_and_their_hints_are_lines_of_the_log(wanc: Wanc, tmp_path: Path) -> None:
    log = tmp_path / "log"
    wanc("build", "absent\r.yaml", "--log-file", log)
    assert said(log)[1:] == [
        "error: absent\\r.yaml: there is no file absent\\r.yaml", "hint: check the path",
    ]  # fmt: skip


def test_a_bug_leaves_its_traceback_in_the_log(
    wanc: Wanc, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("wanc.runtime.verify.verify", faulty)
    with pytest.raises(ZeroDivisionError):
        wanc("verify", tiny_bundle, "--log-file", tmp_path / "log")
    assert said(tmp_path / "log")[-1] == "ZeroDivisionError: a bug"


KINDS = ["folder", "link", "dangling", "fifo", "no folder", "in a bundle", "stdout", "a recipe", "binary"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_log_can_be_the_verb_does_not_begin(
    wanc: Wanc, tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path, kind: str
) -> None:
    place, victim = tmp_path / "log", tmp_path / "victim"
    victim.write_text("mine")
    if kind == "folder":
        place.mkdir()
    elif kind in ("link", "dangling"):
        place.symlink_to(victim if kind == "link" else "nowhere")
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind in ("a recipe", "binary"):
        place.write_bytes(tiny_recipe.read_bytes() if kind == "a recipe" else bytes(100))
        victim.write_bytes(place.read_bytes())
    place = {"no folder": tmp_path / "no/log", "in a bundle": tiny_bundle / "log", "stdout": Path("-")}.get(kind, place)
    finished = wanc("build", tiny_recipe, "-o", tmp_path / "out", "--log-file", place)
    is_wrong = kind in ("in a bundle", "stdout", "a recipe", "binary")
    assert (finished.code, finished.out) == (2 if is_wrong else 74, "")
    assert finished.err.startswith("error: ") and "Traceback" not in finished.err
    assert not (tmp_path / "out").exists() and not (tmp_path / "nowhere").exists()
    if kind in ("a recipe", "binary"):
        assert place.read_bytes() == victim.read_bytes(), "it is as it was"
        assert finished.err == f"error: {place}: is no log, and would be appended to\nhint: name another file\n"
    else:
        assert victim.read_text() == "mine" and not (tiny_bundle / "log").exists()


def test_the_log_is_not_the_output(wanc: Wanc, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(".")
    finished = wanc("run", "b", "--prompt", "a", "-o", tmp_path / "a.mp4", "--log-file", tmp_path / "here/a.mp4")
    assert (finished.code, finished.out) == (2, "")
    assert "the log and the output are one file" in finished.err and not (tmp_path / "a.mp4").exists()


def test_a_log_that_gets_no_room_takes_nothing_back(
    wanc: Wanc, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wanc.log_file.os.write", full)
    finished = wanc("verify", tiny_bundle, "--log-file", tmp_path / "log")
    assert (finished.code, finished.out) == (74, f"verified {Manifest.read(tiny_bundle).id}\n")
    assert finished.err == (
        f"error: {tmp_path}/log: the log is not complete; what was made stands\ncaused by: No space left on device\n"
    )


def test_what_was_logged_before_a_kill_is_there(tiny_bundle: Path, tmp_path: Path) -> None:
    """The process is killed by itself in the middle of a verb."""
    program = f"""
import os, signal, sys
from wanc import cli
import wanc.runtime.verify
wanc.runtime.verify.verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["wanc", "verify", {str(tiny_bundle)!r}, "--log-file", {str(tmp_path / "log")!r}]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    (line,) = said(tmp_path / "log")
    assert line.startswith("begins: ")


def test_lines_of_two_logs_in_one_file_do_not_mix(tmp_path: Path) -> None:
    one, other = LogFile(tmp_path / "log"), LogFile(tmp_path / "log")
    for number in range(200):
        (one if number % 2 else other).write(f"{number} " + "x" * 3000)
    assert [line.partition(" ")[0] for line in said(tmp_path / "log")] == [str(number) for number in range(200)]
    one.close()
    other.close()


def test_warnings_of_the_library_are_said_as_the_rest_is(
    wanc: Wanc, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warning(*arguments: Any) -> Any:
        logging.getLogger("wanc.artifacts.store").warning("%s is damaged", "a record")
        return verify(*arguments)

    monkeypatch.setattr("wanc.runtime.verify.verify", warning)
    assert wanc("verify", tiny_bundle).err == "a record is damaged\n"
    assert wanc("verify", tiny_bundle, "-q", "--log-file", tmp_path / "log").err == ""
    assert "a record is damaged" in said(tmp_path / "log")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# On a terminal


def on_a_terminal(*arguments: object) -> str:
    """What a command writes to a terminal of its own."""
    master, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], stdin=terminal, stdout=terminal, stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(terminal)
    data = b""
    while True:
        try:
            piece = os.read(master, 2**16)
        except OSError:  # EIO: nobody has it open any more
            piece = b""
        if not piece:
            break
        data += piece
    os.close(master)
    assert process.wait() == 0, data.decode()
    return data.decode()


WORKING = """
import sys
from pathlib import Path
from wanc.artifacts.store import Store
from wanc.compiler.stages.runner import Runner
from tests.compiler.stages import Slow
if __name__ == "__main__":
    Runner(Store.open(Path(sys.argv[1])), progress=True).run(Slow("x", sys.argv[2]), {})
"""


def test_the_clock_of_a_stage_ticks_while_it_says_nothing(tmp_path: Path) -> None:
    """Its process holds the interpreter for 3.5 seconds, as a library does that is written in C."""
    drawn = on_a_terminal("-c", WORKING, tmp_path / "store", tmp_path / "log")
    lines = [line.removesuffix("\x1b[K") for line in drawn.replace("\n", "\r").split("\r")]
    seconds = [line.removeprefix("plain half ") for line in lines if line.startswith("plain half [")]
    assert len({line.rpartition(" ")[2] for line in seconds}) >= 3, lines
    assert all(line.startswith("[------------------------] 0/2") for line in seconds[:2])
    assert re.search(r"\r\x1b\[Kplain: \d+\.\d s, peak \d+ MiB", drawn), "the line of the bar makes room for the result"


def test_a_message_does_not_run_into_a_bar() -> None:
    program = """
from wanc.runtime.progress import ProgressBar
from wanc.runtime.voice import say
with ProgressBar("work", 2) as bar:
    say("a note")
"""
    assert "work [------------------------] 0/2 0:00\x1b[K\r\x1b[Ka note\r\n" in on_a_terminal("-c", program)


def test_quiet_draws_nothing_on_a_terminal(tiny_bundle: Path) -> None:
    identity = Manifest.read(tiny_bundle).id
    assert on_a_terminal("-m", "wanc", "verify", tiny_bundle, "-q") == f"verified {identity}\r\n"
    assert "verify [" in on_a_terminal("-m", "wanc", "verify", tiny_bundle)


def test_a_bar_ends_its_thread() -> None:
    from threading import enumerate as threads

    with Bars() as bars:
        bars.begin("nothing")
    with ProgressBar("none", 1):
        assert "clock" not in {thread.name for thread in threads()}, "without a terminal there is none"
