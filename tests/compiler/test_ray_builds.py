"""Builds on Ray: the same results from several nodes at once, also when one of them dies; the same words as here.

The clusters are real, of two nodes on this machine, with one processor each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from typing import IO, Any

import pytest

from tests.compiler.builder import Project
from tests.conftest import Wanc
from wanc.artifacts.canonical import key_of
from wanc.artifacts.store import Store
from wanc.compiler.stages import ray_runner
from wanc.compiler.stages.ray_runner import Order, StageTask, carry_out
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Tree
from wanc.compiler.stages.worker import StageOutcome
from wanc.errors import EXIT_UNAVAILABLE, UserError, render
from wanc.runtime.verify import verify
from wanc.runtime.workers import ray_cluster

from .stages import Blocked, Plain, Refusing

ROOT = Path(__file__).parents[2]
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
"""All on the loopback interface; and what the tests are made of is found on the nodes."""
LONG = 60.0
"""Seconds after which something hangs."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "runs.txt"


def test_stages_that_do_not_wait_for_each_other_have_their_results_in_order(store: Store, log: Path) -> None:
    runner = Runner(store, progress=False)
    one, two = Plain("one", str(log)), Plain("two", str(log))
    both = runner.run_all([(one, {}), (two, {})])
    assert [tree.digest for tree in both] == [runner.run(one, {}).digest, runner.run(two, {}).digest]
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["one", "two"]


def test_an_executor_that_there_is_not(wanc: Wanc, tiny_recipe: Path, tmp_path: Path) -> None:
    for word in ("spark", "ray:", "ray:10.0.0.1", "ray:10.0.0.1:port", "rays"):
        done = wanc("build", tiny_recipe, "-o", tmp_path, "--executor", word)
        assert (done.code, done.err.splitlines()[0]) == (2, f"error: --executor: there is no executor {word!r}")


def test_without_ray_its_extra_is_named(
    wanc: Wanc, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wanc.compiler.stages import stage

    found = stage.installed
    monkeypatch.setattr(stage, "installed", lambda name: None if name == "ray" else found(name))
    done = wanc("build", tiny_recipe, "-o", tmp_path, "--executor", "ray")
    assert (done.code, done.err) == (
        EXIT_UNAVAILABLE,
        "error: building needs the package ray, which is not installed\nhint: pip install 'wanc[ray]'\n",
    )
    assert list(Store.open(tmp_path / "store").records()) == []


def test_where_nobody_listens(wanc: Wanc, tiny_recipe: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = wanc("build", tiny_recipe, "-o", tmp_path, "--executor", f"ray:{address}", "-q")
    assert done.code == EXIT_UNAVAILABLE
    assert done.err.splitlines() == [
        f"error: {address}: there is no Ray cluster that can be joined",
        "caused by: Connection refused",
        "hint: give the address that `ray start --head` prints, and build on one of the cluster's nodes",
    ]
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_what_listens_and_gives_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(UserError) as caught, ray_cluster.connected(f"127.0.0.1:{mute.getsockname()[1]}"):
            pass
    assert (caught.value.where, caught.value.exit_code) == (address, EXIT_UNAVAILABLE)
    assert str(caught.value.__cause__) == "what listens there gave no answer within 2 s"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the node."""
    monkeypatch.setattr(ray_runner, "node_name", lambda: "node 10.0.0.2 (abcdef01)")


def ordered(stage: Plain, store: Store, inputs: dict[str, Tree] | None = None) -> Order:
    return Order.of(stage, inputs or {}, stage.key_document(inputs or {}), store)


def error_of(outcome: StageOutcome) -> str:
    with pytest.raises(UserError) as caught:
        outcome.check()
    return render(caught.value)


@pytest.mark.usefixtures("here")
def test_a_node_does_what_a_build_would_do(store: Store, log: Path) -> None:
    first = Runner(store, progress=False).run(Plain("before", str(log)), {})
    stage, inputs = Plain("x", str(log)), {"before": first}
    outcome = carry_out(ordered(stage, store, inputs))
    outcome.check()
    task = outcome.result
    assert isinstance(task, StageTask) and (task.node, task.run.cached) == ("node 10.0.0.2 (abcdef01)", False)
    assert task.run.key == key_of(stage.key_document(inputs)), "and a build finds it"
    record = store.lookup(str(task.run.key))
    assert record is not None
    assert store.path(record.files["inputs.txt"]).read_text() == "before"
    again = carry_out(ordered(stage, store, inputs))
    assert again.result.run.cached, "so that a task may run twice"


@pytest.mark.usefixtures("here")
def test_a_node_that_does_not_see_the_store(store: Store, log: Path, tmp_path: Path) -> None:
    order = ordered(Plain("x", str(log)), store)
    store.root.rename(tmp_path / "elsewhere")
    assert error_of(carry_out(order)) == (
        f"error: {store.root}/VERSION: is not there on node 10.0.0.2 (abcdef01)\n"
        "caused by: No such file or directory\n"
        "hint: the store, the recipe and the model have to lie where all nodes see them, under one path: -o, --store"
    )
    Store.open(store.root)  # a folder of its own under this path
    assert "changed" in error_of(carry_out(order))
    assert not log.exists()


@pytest.mark.usefixtures("here")
def test_a_node_that_sees_another_file_of_the_model(store: Store, log: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    order = ordered(Plain("x", str(log)), store, {"source": Tree({"weights": "sha256:0"}, lambda: {"weights": path})})
    path.unlink()
    assert error_of(carry_out(order)).startswith(f"error: {path}: is not there on node 10.0.0.2")
    path.write_bytes(b"WEIGHTS")
    assert error_of(carry_out(order)).startswith(f"error: {path}: changed while it was being built")
    assert not log.exists() and list(store.records()) == []


@pytest.mark.usefixtures("here")
def test_a_node_that_would_make_something_else(store: Store, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ordered(Plain("x", str(log)), store)
    own = Plain.key_document
    monkeypatch.setattr(Plain, "key_document", lambda *given: {**own(*given), "processor": "another"})
    assert error_of(carry_out(order)) == (
        "error: plain: node 10.0.0.2 (abcdef01) would not make the same: it differs in processor\n"
        "hint: the nodes of a build have processors of one kind, and the same versions of wanc and its tools"
    )
    assert not log.exists()


class Nodes:
    """A cluster of two nodes; `lose` ends the one that is not the first."""

    def __init__(self, processors: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.compiler.ray_nodes", str(processors)],
            cwd=ROOT, env={**os.environ, **ALONE}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.address = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def lose(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self._line() == "gone"

    def end(self) -> None:
        self.process.communicate(timeout=LONG)


@pytest.fixture
def nodes() -> Generator[Nodes]:
    cluster = Nodes()
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def lasting() -> Generator[Nodes]:
    """One that no test takes a node from."""
    cluster = Nodes()
    yield cluster
    cluster.end()


@contextmanager
def program(*arguments: object, folder: Path = ROOT) -> Generator[subprocess.Popen[str]]:
    """A Python program that does not outlive the body."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *map(str, arguments)],
        cwd=folder, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def drive(store: Store, address: str, stages: Sequence[Plain]) -> AbstractContextManager[subprocess.Popen[str]]:
    asked = json.dumps([[type(stage).__name__, list(vars(stage).values())] for stage in stages])
    return program("tests.compiler.ray_driver", store.root, address, asked)


def ended(driver: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """What it printed, and what it said meanwhile."""
    out, err = driver.communicate(timeout=LONG)
    assert driver.returncode == 0, err
    assert out.startswith("{"), out + err
    return json.loads(out), err


@pytest.fixture
def pair(tmp_path: Path, log: Path) -> list[Blocked]:
    """Two stages that do not end of themselves."""
    made: list[Blocked] = []
    for text in ("one", "two"):
        started, proceed = tmp_path / f"{text}-started", tmp_path / f"{text}-proceed"
        os.mkfifo(started)
        os.mkfifo(proceed)
        made.append(Blocked(text, str(log), str(started), str(proceed)))
    return made


def digests_here(stages: Sequence[Plain], tmp_path: Path) -> list[str]:
    """What they give without Ray."""
    runner = Runner(Store.open(tmp_path / "store-here"), progress=False)
    return [runner.run(Plain(stage.text, stage.log), {}).digest for stage in stages]


@contextmanager
def running(stages: Sequence[Blocked]) -> Generator[dict[str, IO[str]]]:
    """When all of them run at once: what each holds open for as long as its process lives, by its text."""
    with ExitStack() as stack:
        streams: dict[str, IO[str]] = {}
        for stage in stages:
            descriptor = os.open(stage.started, os.O_RDONLY | os.O_NONBLOCK)
            streams[stage.text] = stack.enter_context(os.fdopen(descriptor))
            assert select([descriptor], [], [], LONG)[0], f"{stage.text} does not begin"
            os.set_blocking(descriptor, True)
        assert [stream.readline() for stream in streams.values()] == ["started\n"] * len(stages)
        yield streams


def let_go(stage: Blocked) -> None:
    Path(stage.proceed).write_text("go\n")


@pytest.mark.slow
def test_two_nodes_work_at_the_same_time(lasting: Nodes, store: Store, pair: list[Blocked], tmp_path: Path) -> None:
    with drive(store, lasting.address, pair) as driver:
        with running(pair):
            for stage in reversed(pair):
                let_go(stage)
        result, err = ended(driver)
    (one, begun, done), (other, begun_too, done_too) = result["tasks"]
    assert one != other and max(begun, begun_too) < min(done, done_too)
    assert result["digests"] == digests_here(pair, tmp_path)
    assert result["keys"] == [key_of(stage.key_document({})) for stage in pair], "in the order in which they were asked"
    assert [re.sub(r"[\d.]+", "N", line) for line in err.splitlines()] == ["plain: N s, peak N MiB"] * 2
    with drive(store, lasting.address, pair) as driver:
        again, err = ended(driver)
    assert (again["tasks"], err) == ([], "plain: cached\nplain: cached\n"), "Ray is not asked for what is stored"


@pytest.mark.slow
def test_what_a_node_did_that_dies_is_done_by_another(
    nodes: Nodes, store: Store, pair: list[Blocked], tmp_path: Path
) -> None:
    with drive(store, nodes.address, pair) as driver:
        with running(pair) as streams:
            nodes.lose()
            (gone, *others), _, _ = select([*streams.values()], [], [], LONG)
            assert gone.read() == "" and not others
            lost, left = sorted(pair, key=lambda stage: streams[stage.text] is not gone)
            let_go(left)
        with running([lost]):
            let_go(lost)
        result, err = ended(driver)
    assert result["digests"] == digests_here(pair, tmp_path)
    assert len({node for node, _, _ in result["tasks"]}) == 1, "both on the one that is left"
    assert [re.sub(r"[\d.]+", "N", line) for line in err.splitlines()] == ["plain: N s, peak N MiB"] * 2
    assert list((Store.open(store.root).root / "tmp").iterdir()) == [], "what the dead have left is swept"


@pytest.mark.slow
def test_a_fault_on_a_node_is_told_as_it_would_be_here(lasting: Nodes, store: Store, log: Path, tmp_path: Path) -> None:
    with drive(store, lasting.address, [Refusing("x", str(log))]) as driver:
        result, err = ended(driver)
    with pytest.raises(UserError) as caught:
        Runner(Store.open(tmp_path / "here"), progress=False).run(Refusing("x", str(log)), {})
    assert result == {"error": render(caught.value), "kind": "CheckpointError", "code": 74}
    assert err == ""
    assert list(store.records()) == [] and list((store.root / "tmp").iterdir()) == []


def interrupted(store: Store, address: str, pair: list[Blocked], number: signal.Signals) -> tuple[int, str]:
    """The exit code of a driver that gets a signal while both stages run, and what it says."""
    with drive(store, address, pair) as driver:
        with running(pair) as streams:
            driver.send_signal(number)
            assert [stream.read() for stream in streams.values()] == ["", ""], "their processes have ended"
        _, err = driver.communicate(timeout=LONG)
    return driver.returncode, err


@pytest.mark.slow
def test_an_interrupt_ends_what_runs_on_the_nodes(lasting: Nodes, store: Store, pair: list[Blocked]) -> None:
    assert interrupted(store, lasting.address, pair, signal.SIGTERM) == (143, "")
    assert list(store.records()) == [] and list((store.root / "tmp").iterdir()) == []


@pytest.mark.slow
def test_an_interrupt_ends_a_cluster_that_was_started_for_the_build(
    store: Store, pair: list[Blocked], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory(prefix="t-") as folder:  # its sockets' paths must be short
        monkeypatch.setenv("TMPDIR", folder)
        code, err = interrupted(store, "", pair, signal.SIGINT)
        assert (code, err.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
        assert list(Path(folder).iterdir()) == [] and processes_in(folder) == []
    assert list(store.records()) == [] and list((store.root / "tmp").iterdir()) == []


def processes_in(folder: str) -> list[str]:
    """The command lines that name a folder."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if f"{folder}/" in line]


@pytest.fixture
def fused(project: Project, tmp_path: Path) -> Project:
    """The project elsewhere, as far as it is fused: what comes then has not been made."""
    copy = project.copy(tmp_path)
    shutil.rmtree(copy.result.bundle)
    store = Store.open(copy.output / "store")
    for record in list(store.records()):
        if record.stage not in ("export", "fuse"):
            (store.root / "actions" / f"{record.key}.json").unlink()
    return copy


def build_on(nodes: Nodes, project: Project) -> AbstractContextManager[subprocess.Popen[str]]:
    """The build is started in a folder with a file that no stage must take for the library of that name."""
    (project.root / "onnx.py").write_text("raise ZeroDivisionError")
    asked = ("build", project.recipe, "-o", project.output, "--executor", f"ray:{nodes.address}", "-v")
    return program("wanc", *asked, folder=project.root)


def check_built(project: Project, driver: subprocess.Popen[str], out: str, err: str) -> None:
    assert driver.returncode == 0, err
    assert out == f"{project.result.bundle}  {project.result.id}\n", "as it is without Ray, and nothing else"
    assert verify(project.result.bundle).ok


@pytest.mark.slow
def test_a_bundle_from_two_nodes_is_the_same(lasting: Nodes, fused: Project) -> None:
    with build_on(lasting, fused) as driver:
        out, err = driver.communicate(timeout=LONG)
    check_built(fused, driver, out, err)
    told = re.findall(r"^(.+): [\d.]+ to [\d.]+ on (node .+)$", err, flags=re.MULTILINE)
    assert [name for name, _ in told if not name.startswith("compile")] == ["partition", "engine", "tables", "check"]
    compiled = {name: node for name, node in told if name.startswith("compile")}
    components = ("denoiser_high", "denoiser_low", "text_encoder", "vae_decoder")
    assert sorted(compiled) == [f"compile {component}/0" for component in components]
    assert len(set(compiled.values())) == 2
    assert "export: cached" in err.splitlines()


@pytest.mark.slow
def test_a_bundle_is_the_same_though_a_node_dies_meanwhile(nodes: Nodes, fused: Project) -> None:
    with build_on(nodes, fused) as driver:
        assert driver.stderr is not None
        early = ""
        while not early.endswith(" MiB\n") or "compile" not in early:
            early += driver.stderr.readline()
        nodes.lose()  # others are being compiled
        out, err = driver.communicate(timeout=LONG)
    check_built(fused, driver, out, early + err)
