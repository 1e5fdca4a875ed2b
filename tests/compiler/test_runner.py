"""Running stages: computed once, in a process of their own, whose faults arrive whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.artifacts.canonical import key_of
from wanc.artifacts.pins import PinnedFiles
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.passes.apply import PassError
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Stage, Tree
from wanc.compiler.stages.worker import CrashError
from wanc.errors import EXIT_DATA, EXIT_TEMPORARY, EXIT_UNAVAILABLE, CheckpointError, OutputError, UserError, render

from .stages import (
    Blocked,
    Broken,
    Crashing,
    Curious,
    Endless,
    Greedy,
    Hungry,
    Killed,
    Large,
    Miswritten,
    Plain,
    Refusing,
    Resuming,
)

pytestmark = pytest.mark.usefixtures("fresh_stages")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Store.open(tmp_path / "store"), progress=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "runs.txt"


def runs(log: Path) -> list[list[str]]:
    """(text, process, progress) of every run so far."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def contents(tree: Tree) -> dict[str, str]:
    return {name: path.read_text() for name, path in tree.locate().items()}


def test_a_stage_is_computed_once(runner: Runner, log: Path) -> None:
    stage = Plain("hello", str(log))
    first = runner.run(stage, {})
    assert contents(first) == {"folder/result.txt": "hello", "inputs.txt": ""}
    second = runner.run(stage, {})
    assert second.digest == first.digest
    assert contents(second) == contents(first)
    assert [run.cached for run in runner.runs] == [False, True]
    assert len(runs(log)) == 1
    assert runs(log)[0][1] != str(os.getpid())


def test_another_runner_finds_it(runner: Runner, log: Path) -> None:
    runner.run(Plain("hello", str(log)), {})
    other = Runner(Store.open(runner.store.root), progress=False)
    other.run(Plain("hello", str(log)), {})
    assert [run.cached for run in other.runs] == [True]


def test_other_parameters_and_other_inputs_are_computed_anew(runner: Runner, log: Path) -> None:
    one = runner.run(Plain("one", str(log)), {})
    two = runner.run(Plain("two", str(log)), {"before": one})
    three = runner.run(Plain("two", str(log)), {"before": two})
    assert [run.cached for run in runner.runs] == [False] * 3
    assert contents(two)["inputs.txt"] == "one"
    assert contents(three)["inputs.txt"] == "twoone"


def test_what_a_run_reports(runner: Runner, log: Path) -> None:
    runner.run(Hungry("x", str(log)), {})
    runner.run(Hungry("x", str(log)), {})
    computed, cached = (run.as_json() for run in runner.runs)
    assert computed.keys() == {"name", "label", "seconds", "cached", "peak_rss_bytes"}
    assert (computed["name"], computed["cached"], cached["cached"]) == ("plain", False, True)
    assert computed["peak_rss_bytes"] > 200_000_000
    assert cached["peak_rss_bytes"] == computed["peak_rss_bytes"], "what it cost when it was computed"
    assert 0 <= cached["seconds"] <= computed["seconds"]
    assert runner.runs[0].key == key_of(Hungry("x", str(log)).key_document({}))


def test_a_users_fault_arrives_with_everything_that_it_says(runner: Runner, log: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        runner.run(Refusing("x", str(log)), {})
    error = caught.value
    assert (error.message, error.where, error.hint, error.exit_code) == ("no good", "model.bin", "try another", 74)
    assert render(error) == (
        "error: model.bin: no good\n"
        "caused by: inner.bin: not readable\n"
        "caused by: No such file or directory\n"
        "hint: try another\n"
        "hint: inner hint"
    )


def test_a_bug_keeps_its_traceback(runner: Runner, log: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        runner.run(Broken("x", str(log)), {})
    assert "stages.py" in str(caught.value.__cause__)


def test_a_pass_that_makes_a_graph_invalid_is_such_a_bug(runner: Runner, log: Path) -> None:
    with pytest.raises(PassError) as caught:
        runner.run(Miswritten("x", str(log)), {})
    assert str(caught.value).startswith("the pass misspell made vae_decoder/first invalid: ")
    assert str(caught.value).endswith("This is a bug of wanc: please tell us, with the lines above.")
    assert "stages.py" in str(caught.value.__cause__)


def test_a_killed_worker_is_told_from_a_bug(runner: Runner, log: Path) -> None:
    with pytest.raises(UserError) as caught:
        runner.run(Killed("x", str(log)), {})
    assert caught.value.exit_code == EXIT_UNAVAILABLE
    assert render(caught.value).splitlines()[0] == "error: the process of stage plain was killed"
    assert render(caught.value).splitlines()[-1] == "hint: most often the system is out of memory: `dmesg` tells"


def test_a_worker_that_crashes_is_the_models_fault(runner: Runner, log: Path) -> None:
    with pytest.raises(CrashError) as caught:
        runner.run(Crashing("x", str(log)), {})
    assert (caught.value.exit_code, caught.value.message) == (EXIT_DATA, "the process of stage plain crashed (SIGSEGV)")


def test_a_stage_that_would_fill_the_disk_does_not_begin(
    runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = runner.store.root
    monkeypatch.setattr("wanc.compiler.stages.runner.free_bytes", {root: 1000}.__getitem__)
    with pytest.raises(OutputError) as caught:
        runner.run(Large("x", str(log), says=1001), {})
    assert caught.value.exit_code == 74
    assert render(caught.value) == (
        f"error: {root}: no space for the stage plain: about 1001 bytes needed, 1000 bytes free\n"
        "hint: free some space, with `wanc store gc` for one, or choose a store on another file system: --store"
    )
    assert runs(log) == [] and list(runner.store.records()) == [] and list((root / "tmp").iterdir()) == []
    runner.run(Large("x", str(log), says=1000), {})


def test_what_a_stage_has_kept_is_written_already(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Large("x", str(log), most=2, says=1001)
    with pytest.raises(UserError, match="was killed"):
        runner.run(stage, {})
    kept = sum(path.stat().st_size for path in runner.store.scratch(key_of(stage.key_document({}))).iterdir())
    monkeypatch.setattr("wanc.compiler.stages.runner.free_bytes", lambda _: 1001 - kept)
    runner.run(stage, {})


@pytest.mark.parametrize("kind", [Refusing, Broken, Killed, Crashing])
def test_failures_are_not_remembered(runner: Runner, log: Path, kind: Callable[[str, str], Stage]) -> None:
    """Each of these has the key of a stage that works."""
    with pytest.raises((UserError, ZeroDivisionError)):
        runner.run(kind("x", str(log)), {})
    assert list(runner.store.records()) == []
    assert runner.runs == []
    assert list((runner.store.root / "tmp").iterdir()) == []
    assert contents(runner.run(Plain("x", str(log)), {}))["folder/result.txt"] == "x"
    assert len(runs(log)) == 2


def test_a_stage_that_was_killed_goes_on_where_it_was(runner: Runner, log: Path) -> None:
    """Both have the same key: how much of it one run manages is no parameter of a plain stage."""
    with pytest.raises(UserError, match="was killed"):
        runner.run(Resuming("x", str(log), most=3), {})
    assert list(runner.store.records()) == [] and list((runner.store.root / "tmp").iterdir()) == []
    again = Runner(Store.open(runner.store.root), progress=False)
    parts = {name: text for name, text in contents(again.run(Resuming("x", str(log)), {})).items() if "part" in name}
    (_, first, _), (_, second, _) = runs(log)
    assert parts == {f"part-{part}": f"x {first if part < 3 else second}" for part in range(4)}


def test_what_was_kept_goes_when_the_result_is_recorded(runner: Runner, log: Path) -> None:
    runner.run(Resuming("x", str(log)), {})
    assert list((runner.store.root / "scratch").iterdir()) == []
    assert [run.cached for run in runner.runs] == [False]
    runner.run(Resuming("x", str(log)), {})
    assert [run.cached for run in runner.runs] == [False, True]
    assert list((runner.store.root / "scratch").iterdir()) == []


def source_of(path: Path, store: Store) -> Tree:
    """A file outside the store, as a checkpoint's are."""
    pins = PinnedFiles({"source": path}, SourceDigests(store))

    def locate() -> dict[str, Path]:
        pins.check()
        return {"source": path}

    return Tree({name: blob.digest for name, blob in pins.blobs.items()}, locate)


@pytest.mark.parametrize("change", ["none", "put back", "put back with its times"])
def test_what_was_kept_goes_when_the_sources_are_other_files(
    runner: Runner, log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: str
) -> None:
    """They have the same content: but they need not have had it while the parts were made."""
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match="was killed"):
        runner.run(Resuming("x", str(log), most=3), {"source": source_of(path, runner.store)})
    times = path.stat()
    if change != "none":
        path.write_bytes(b"WEIGHTS")
        path.write_bytes(b"weights")
    if change == "put back with its times":
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = runner.run(Resuming("x", str(log)), {"source": source_of(path, runner.store)})
    parts = {text.split()[1] for name, text in contents(result).items() if "part" in name}
    processes = [process for _, process, _ in runs(log)]
    assert parts == (set(processes) if change == "none" else {processes[1]})
    assert ("sources have changed" in capfd.readouterr().err) == (change != "none")
    assert list((runner.store.root / "scratch").iterdir()) == []


def test_what_was_kept_goes_when_a_source_changes_meanwhile(runner: Runner, log: Path) -> None:
    """The file that the stage itself writes into."""
    log.touch()
    with pytest.raises(UserError, match="changed while it was being built") as caught:
        runner.run(Resuming("x", str(log), most=3), {"source": source_of(log, runner.store)})
    assert caught.value.where == str(log)
    assert list((runner.store.root / "scratch").iterdir()) == [] and list(runner.store.records()) == []


def test_another_stage_finds_nothing_of_it(runner: Runner, log: Path) -> None:
    with pytest.raises(UserError, match="was killed"):
        runner.run(Resuming("x", str(log), most=3), {})
    other = contents(runner.run(Resuming("y", str(log)), {}))
    assert {text.split()[0] for name, text in other.items() if "part" in name} == {"y"}
    (left,) = (runner.store.root / "scratch").iterdir()
    assert left.name == key_of(Resuming("x", str(log)).key_document({}))
    assert len(list(left.iterdir())) == 3


def test_a_stage_that_does_not_resume_has_no_such_folder(runner: Runner, log: Path) -> None:
    runner.run(Plain("x", str(log)), {})
    with pytest.raises(UserError):
        runner.run(Killed("y", str(log)), {})
    assert list((runner.store.root / "scratch").iterdir()) == []


def test_without_progress_nothing_is_printed(runner: Runner, log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner.run(Plain("x", str(log)), {})
    runner.run(Plain("x", str(log)), {})
    assert capfd.readouterr() == ("", "")
    assert runs(log)[0][2] == "False"


def test_with_progress_each_stage_has_a_line(runner: Runner, log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    talking = Runner(runner.store, progress=True)
    talking.run(Plain("x", str(log)), {})
    talking.run(Plain("x", str(log)), {})
    out, err = capfd.readouterr()
    computed, cached = err.splitlines()
    assert out == ""
    assert computed.startswith("plain: ") and " s, peak " in computed and computed.endswith(" MiB")
    assert cached == "plain: cached"
    assert runs(log)[0][2] == "True"


CALCULATING = (
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES",
    "ORT_DISABLE_FLASH_ATTENTION", "GLIBC_TUNABLES", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE", "OV_CPU_PROFILE",
)  # fmt: skip
"""Variables by which libraries calculate otherwise, or might."""

INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
SCRIPT = """
from wanc.runtime.ending import clean_up_on_sigterm
clean_up_on_sigterm()
import sys
from pathlib import Path
from tests.compiler.stages import Blocked
from wanc.artifacts.store import Store
from wanc.compiler.stages.runner import Runner
store, *fields = sys.argv[1:]
runner = Runner(Store.open(Path(store)), progress=False)
tree = runner.run(Blocked(*fields), {})
print(runner.runs[0].cached, tree.digest)
"""


@pytest.fixture
def blocked(tmp_path: Path, log: Path) -> Blocked:
    for name in ("started", "proceed"):
        os.mkfifo(tmp_path / name)
    return Blocked("x", str(log), str(tmp_path / "started"), str(tmp_path / "proceed"))


def start(store: Store, stage: Blocked) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # A shell that starts the tests in the background has interrupts ignored, and children inherit that.
        [
            sys.executable,
            "-c",
            INTERRUPTIBLE + SCRIPT,
            str(store.root),
            stage.text,
            stage.log,
            stage.started,
            stage.proceed,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_compute_a_stage_once(runner: Runner, log: Path, blocked: Blocked) -> None:
    with start(runner.store, blocked) as first, Path(blocked.started).open() as started:
        assert started.readline() == "started\n"
        with start(runner.store, blocked) as second:
            assert second.stderr is not None
            # The line comes when the second has found the key taken.
            assert second.stderr.readline().startswith(f"waiting for process {first.pid} on ")
            Path(blocked.proceed).write_text("go\n")
            (one, _), (two, _) = first.communicate(timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert one.split()[1] == two.split()[1], "both have the same"
    assert (one.split()[0], two.split()[0]) == ("False", "True"), "and only the first has computed it"
    assert len(runs(log)) == 1


def test_the_worker_dies_with_its_build(runner: Runner, blocked: Blocked) -> None:
    with start(runner.store, blocked) as build, Path(blocked.started).open() as started:
        assert started.readline() == "started\n"
        build.kill()
        # The worker holds the other end open for as long as it lives.
        assert started.read() == ""
    assert list(runner.store.records()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)])
def test_a_signal_to_the_build_alone_stops_its_stage(
    runner: Runner, blocked: Blocked, number: signal.Signals, code: int
) -> None:
    """From a terminal both processes get it; a supervisor may send it to the parent only."""
    with start(runner.store, blocked) as build, Path(blocked.started).open() as started:
        assert started.readline() == "started\n"
        build.send_signal(number)
        assert started.read() == ""
        _, err = build.communicate(timeout=60)
    assert build.returncode == code
    assert err == "" or err.rstrip().endswith("KeyboardInterrupt")
    assert list(runner.store.records()) == []
    assert list((runner.store.root / "tmp").iterdir()) == []


def test_a_stage_that_takes_too_long_is_stopped(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANC_STAGE_TIMEOUT", "1.5")
    with pytest.raises(UserError) as caught:
        runner.run(Endless("x", str(log)), {})
    assert render(caught.value) == (
        "error: stage plain ran for more than 1.5 s and was stopped\n"
        "hint: set WANC_STAGE_TIMEOUT to the number of seconds that it may take; finished stages are kept"
    )
    assert caught.value.exit_code == EXIT_TEMPORARY
    if log.exists():  # where starting took less than the limit
        with pytest.raises(ProcessLookupError):
            os.kill(int(runs(log)[0][1]), 0)
    assert list(runner.store.records()) == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("WANC_STAGE_TIMEOUT", seconds)
    with pytest.raises(UserError, match=f"WANC_STAGE_TIMEOUT must be a number of seconds, not '{seconds}'"):
        runner.run(Plain("x", str(log)), {})
    assert not log.exists()


def test_a_stage_that_needs_too_much_memory(runner: Runner, log: Path) -> None:
    with pytest.raises(UserError) as caught:
        runner.run(Greedy("x", str(log)), {})
    assert render(caught.value) == (
        "error: stage plain needs more memory than this machine has\n"
        "caused by: out of memory\n"
        "hint: build on a larger machine, or add swap"
    )
    assert caught.value.exit_code == EXIT_UNAVAILABLE


def test_the_script_that_builds_is_not_executed_again(runner: Runner, log: Path, tmp_path: Path) -> None:
    """It needs no guard, and what it does first happens once."""
    script = tmp_path / "script.py"
    script.write_text(f"""print("begun", flush=True)
from pathlib import Path
from tests.compiler.stages import Plain
from wanc.artifacts.store import Store
from wanc.compiler.stages.runner import Runner
Runner(Store.open(Path({str(runner.store.root)!r})), progress=False).run(Plain("x", {str(log)!r}), {{}})
""")
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")
    assert len(runs(log)) == 1


def test_every_stage_goes_through_sets_in_one_order(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = contents(runner.run(Curious("x", str(log)), {}))["hash.txt"]
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert contents(runner.run(Curious("y", str(log)), {}))["hash.txt"] == one


def test_a_stage_is_confined(runner: Runner, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in CALCULATING:
        monkeypatch.setenv(name, "1")
    seen = contents(runner.run(Curious("x", str(log)), {}))
    for variables in (seen["variables.txt"].split("\n"), seen["began.txt"].split("\n")):
        assert {"PATH", "LC_ALL", "HF_HUB_OFFLINE"} <= set(variables)
        assert not {"AWS_SECRET_ACCESS_KEY", "HF_HOME", *CALCULATING} & set(variables)
    assert seen["core.txt"] == "(0, 0)"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0:
        assert seen["interfaces.txt"] == "lo"
