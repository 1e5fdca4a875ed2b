"""What tests in several folders share: builds, made once in a run by whoever is first, and the command line."""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from wanc import cli
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.stages import worker
from wanc.compiler.stages.runner import StageRun
from wanc.recipe.load import load
from wanc.runtime.backends.offline import stay_offline

from .zygote import Zygote

if TYPE_CHECKING:
    from tests.compiler.builder import Project

FRESH = worker.start
ROOT = Path(__file__).resolve().parents[1]

# The files that take longest are begun first, so that no process is left with one of them when others are done.
# Of those that need tiny-wan's bundle one is far before the others, which would wait for it.
FIRST = (
    "bundle/test_wide.py", "compiler/test_true_size.py", "test_qat_tiny_wan.py", "compiler/test_quantize_memory.py",
    "bundle/test_hoisting.py", "compiler/test_pipeline.py", "bundle/test_layouts.py", "faults/test_kills.py",
    "bundle/test_causal.py", "compiler/test_parity_layouts.py", "compiler/test_fused_models.py",
    "compiler/test_parity.py", "compiler/test_tracing.py", "bundle/test_cut.py", "faults/test_concurrency.py",
    "faults/test_random_kills.py", "models/test_onnx_file_fuzz.py", "models/test_onnx_file_limits.py",
    "report/test_planted.py", "report/test_bisect.py", "bench/test_bench_report.py", "bundle/test_decoder_of_codes.py",
)  # fmt: skip

stay_offline()  # before a test loads an engine's library of its own accord

settings.register_profile("fixed", derandomize=True, deadline=None)  # the same examples every time, on any machine
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {ROOT / "tests" / file: number for number, file in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(FIRST)))


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


Wanc = Callable[..., Finished]


@pytest.fixture(scope="session", autouse=True)
def stages_are_forked() -> Iterator[None]:
    """A stage's process is a fork of one that has imported all that stages use; see `fresh_stages`."""
    zygote = Zygote()
    worker.start = zygote.start
    yield
    worker.start = FRESH
    zygote.close()


@pytest.fixture(scope="session", autouse=True)
def each_process_has_a_core() -> None:
    """Two processes of two OpenMP threads each would spin most of the time, waiting for one another."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def garbage_is_looked_for_in_what_is_new() -> None:
    """A collection goes through all objects there are, and by the end of a run these are millions: a second each time.

    Those of files before are set aside, once they are rid of their own garbage.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For `pytestmark` of what trains: tiny steps are fastest on one thread, above all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fresh_stages() -> Iterator[None]:
    """For `pytestmark`: stages begin as a user's do, in an interpreter of their own."""
    forked = worker.start
    worker.start = FRESH
    yield
    worker.start = forked


@pytest.fixture(scope="session")
def tiny_recipe() -> Path:
    return ROOT / "recipes" / "tiny-wan.yaml"


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run that all its processes share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "together"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_recipe: Path, together: Path) -> Path:
    """The bundle of recipes/tiny-wan.yaml, with its store beside it. Tests read it and never change it.

    Processes that run side by side build it together: the store sees to it that each stage is computed once.
    """
    (loaded,) = load(tiny_recipe)
    return build(loaded, together / "tiny", progress=False).bundle


@pytest.fixture(scope="session")
def project(together: Path) -> Project:
    """The first build of a small checkpoint, for looking at: tests that change something take a copy."""
    import torch

    from tests.checkpoints import write_checkpoint
    from tests.compiler.builder import RECIPE, Project

    root, output, kept = (together / "project" / name for name in ("root", "output", "result.json"))
    root.mkdir(parents=True, exist_ok=True)
    with (together / "project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            write_checkpoint(root / "model", seed=4, dtype=torch.float16, shards=2)
            (root / "recipe.yaml").write_text(RECIPE)
            (loaded,) = load(root / "recipe.yaml")
            result = build(loaded, output, progress=False)
            kept.write_text(json.dumps(dataclasses.asdict(result), default=str))
    document = json.loads(kept.read_text())
    stages = tuple(StageRun(**run) for run in document["stages"])
    return Project(root, output, BuildResult(Path(document["bundle"]), document["id"], stages))


@pytest.fixture
def wanc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Wanc:
    """Runs `wanc ARGUMENTS…` in this process, through its console entry point."""

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["wanc", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Finished(code, *capfd.readouterr())

    return run
