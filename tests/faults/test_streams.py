"""Where a command prints to, where it stands and what day it is: refused before the work, or told by the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.artifacts.store import Store
from wanc.runtime.verify import verify

from .project import Project

ROOT = Path(__file__).resolve().parents[2]
WANC = f"{sys.executable} -m wanc"
NOWHERE = "let it lead somewhere, if only to /dev/null\n"


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, whose own streams are pipes."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# name: (what follows the command, stderr)
STREAMS = {
    "stdout closed": (">&-", f"error: stdout is closed: {NOWHERE}"),
    "stdout full": ("> /dev/full", f"error: stdout is a device that is full: {NOWHERE}"),
    "stdout to read": ("1< /dev/null", f"error: stdout is only open for reading: {NOWHERE}"),
    "stderr closed": ("2>&-", ""),
    "stderr full": ("2> /dev/full", ""),
    "both closed": (">&- 2>&-", ""),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_build_that_nobody_could_hear_of_is_not_begun(block: Project, tmp_path: Path, name: str) -> None:
    redirected, err = STREAMS[name]
    command = f"{WANC} build recipe.yaml -o {tmp_path / 'output'} --json {redirected}"
    finished = shell(command, block.recipe.parent)
    assert (finished.returncode, finished.stderr) == (74, err)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("redirected", ["<&-", "> /dev/null", "> file 2>&1"])
def test_what_takes_something_is_good_enough(block: Project, tmp_path: Path, redirected: str) -> None:
    finished = shell(f"{WANC} recipe check {block.recipe} {redirected}", tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "recipe check recipe.yaml", "verify reference/bundles/block", "no-such-verb"]
)
def test_every_verb_says_so(block: Project, arguments: str) -> None:
    finished = shell(f"{WANC} {arguments} > /dev/full", block.recipe.parent)
    assert (finished.returncode, finished.stderr) == (74, f"error: stdout is a device that is full: {NOWHERE}")


@pytest.mark.parametrize("redirected", [">&-", "> /dev/full"])
@pytest.mark.parametrize("arguments", ["--selftest", "--help"])
def test_a_bundle_says_so_as_well(block: Project, tmp_path: Path, arguments: str, redirected: str) -> None:
    run = block.recipe.parent / "reference/bundles/block/run.py"
    finished = shell(f"{sys.executable} {run} {arguments} {redirected}", tmp_path)
    what = "closed" if redirected == ">&-" else "a device that is full"
    assert (finished.returncode, finished.stderr) == (74, f"error: stdout is {what}: {NOWHERE}")


def test_a_folder_that_is_gone(block: Project, tmp_path: Path) -> None:
    run = block.recipe.parent / "reference/bundles/block/run.py"
    for command in (f"{WANC} recipe check {block.recipe}", f"{sys.executable} {run} --selftest"):
        (tmp_path / "gone").mkdir()
        finished = shell(f"cd gone && rmdir ../gone && {command}", tmp_path)
        assert (finished.returncode, finished.stdout) == (66, "")
        assert finished.stderr == "error: the working directory is gone: cd to one that exists\n"


def test_a_reader_that_went_before_the_work(block: Project, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "wanc", *block.command(tmp_path / "output")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writing)
    assert (finished.returncode, finished.stderr.decode()) == (
        74,
        f"error: stdout is a pipe that nobody reads: {NOWHERE}",
    )
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_while_it_works_costs_no_work(block: Project, tmp_path: Path, stream: str) -> None:
    """A build that waits for the store has found its streams in order."""
    output, pipe = tmp_path / "output", subprocess.PIPE
    command = [sys.executable, "-m", "wanc", "build", str(block.recipe), "-o", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    store = Store.open(output / "store")
    with ExitStack() as held:
        held.enter_context(store.alone())
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stderr.readline().startswith("waiting for process ")
            gone, left = (process.stdout, process.stderr)[:: 1 if stream == "stdout" else -1]
            gone.close()
            held.close()
            said = left.read()
    assert verify(output / "bundles/block").id == block.id, "the bundle stands"
    if stream == "stdout":
        assert process.returncode == 74
        assert said.endswith("error: stdout cannot be written (Broken pipe); what was made stands\n")
    else:
        assert (process.returncode, said) == (0, f"{output / 'bundles/block'}  {block.id}\n")


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "1e9", "1_000", " 7", "٣", "253402300800", "9" * 5000])
@pytest.mark.parametrize("verb", ["build", "store why"])
def test_a_date_that_is_none(
    block: Project, wanc: Wanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, verb: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    finished = wanc(*verb.split(), block.recipe, "-o", tmp_path / "output")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == (
        f"error: SOURCE_DATE_EPOCH must be a number of seconds since 1970, as date +%s says it, not {text[:40]!r}\n"
    )
    assert not (tmp_path / "output").exists()
