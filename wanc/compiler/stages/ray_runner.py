"""Builds on Ray: what does not depend on each other runs at the same time, on the nodes of a cluster.

Ray is the engine here: it chooses a node, starts a process there, and begins a task anew elsewhere when its node dies.
A task is what a build in one process does with a stage: it is looked up in the store, executed in a confined process,
and committed under its key. So a task may run twice, and what comes back of it is only how it went. Results travel
through the store, which has to lie where all nodes see it, under one path; so have the model's files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from wanc.artifacts.canonical import key_of
from wanc.artifacts.files import looks_of
from wanc.artifacts.records import Blob
from wanc.artifacts.sources import changed
from wanc.artifacts.store import Store
from wanc.compiler.stages.runner import Runner, StageRun, tree_of
from wanc.compiler.stages.running import Action
from wanc.compiler.stages.stage import Files, Stage, Tree, tool_version
from wanc.compiler.stages.worker import StageOutcome, outcome_of
from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.progress import Bars
from wanc.runtime.voice import explain
from wanc.runtime.workers.ray_cluster import cause_of, connected, node_name

RETRIES = 3
"""How often a task begins anew whose node has died."""
CANCEL_SECONDS = 10.0
"""For the processes of tasks that nobody wants any more: they are killed, and need none of it."""
SHARED = "the store, the recipe and the model have to lie where all nodes see them, under one path: -o, --store"


@dataclass(frozen=True)
class SentTree:
    """A `Tree` that travels to another machine: what its files are called, where they lie, and how they look there."""

    digests: Mapping[str, str]
    files: Mapping[str, SentFile]

    @classmethod
    def of(cls, tree: Tree) -> SentTree:
        """Raises UserError where the tree's files are no longer what its digests say."""
        return cls(tree.digests, {name: SentFile.of(path) for name, path in tree.locate().items()})

    def tree(self, store: Store) -> Tree:
        """The same on the other machine, of which `store` is the build's store."""
        return Tree(self.digests, partial(self._locate, store))

    def _locate(self, store: Store) -> Files:
        return {name: file.find(store) for name, file in self.files.items()}


@dataclass(frozen=True)
class SentFile:
    """A file that all nodes are to see, and how it looks, by `looks_of`."""

    path: Path
    looks: tuple[int, int, int, int]

    @classmethod
    def of(cls, path: Path) -> SentFile:
        return cls(path, looks_of(path))

    def find(self, store: Store) -> Path:
        """Where it lies on this machine. Raises UserError where it does not, or is not what it was."""
        if self.path.is_relative_to(store.root):
            # Others link to it meanwhile, which shows in its times: its name is the digest of what it has to be.
            return store.path(Blob(f"sha256:{self.path.name}", self.looks[1]))
        self.check()
        return self.path

    def check(self) -> None:
        """Raises UserError where this machine does not see the file, or sees another."""
        try:
            here = SentFile.of(self.path)
        except OSError as error:
            raise UserError(
                f"is not there on {node_name()}", where=str(self.path), hint=SHARED, exit_code=EXIT_UNAVAILABLE
            ) from error
        if here != self:
            raise changed(self.path)


@dataclass(frozen=True)
class Order:
    """A stage to be run on a node, with all that tells whether the node sees and is what this machine sees and is."""

    stage: Stage
    inputs: Mapping[str, SentTree]
    document: Mapping[str, Any]
    store: SentFile
    variables: Mapping[str, str]

    @classmethod
    def of(cls, stage: Stage, inputs: Mapping[str, Tree], document: Mapping[str, Any], store: Store) -> Order:
        variables = {name: value for name, value in os.environ.items() if name.startswith("WANC_")}
        sent = {name: SentTree.of(tree) for name, tree in inputs.items()}
        return cls(stage, sent, document, SentFile.of(store.root / "VERSION"), variables)


@dataclass(frozen=True)
class StageTask:
    """How a stage went on a node: the node's name, and when it began and ended there, in seconds since 1970."""

    run: StageRun
    node: str
    began: float
    ended: float


def carry_out(order: Order) -> StageOutcome:
    """The task: run a stage on this node. The result of the outcome is a `StageTask`; faults travel in words."""
    return outcome_of(order.stage.name, _carry_out, (order,), {})


def _carry_out(order: Order) -> StageTask:
    began = time.time()
    os.environ.update(order.variables)
    order.store.check()
    store = Store.existing(order.store.path.parent)
    inputs = {name: tree.tree(store) for name, tree in order.inputs.items()}
    _check_alike(order, order.stage.key_document(inputs))
    runner = Runner(store, progress=False)
    runner.run(order.stage, inputs)
    return StageTask(runner.runs[-1], node_name(), began, time.time())


def _check_alike(order: Order, here: Mapping[str, Any]) -> None:
    """Raise UserError on a node that would compute something else: its key says in what it differs."""
    there = order.document
    if different := sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name)):
        raise UserError(
            f"{node_name()} would not make the same: it differs in {', '.join(different)}",
            where=order.stage.label,
            hint="the nodes of a build have processors of one kind, and the same versions of wanc and its tools",
            exit_code=EXIT_UNAVAILABLE,
        )


@dataclass
class RayRunner(Runner):
    """Runs the stages of one build as tasks of Ray, which is reached when there is a stage to run, and left at the end.

    `address` is that of a running cluster; None starts one. `tasks` is how each went that was not stored already.
    """

    address: str | None = None
    tasks: list[StageTask] = field(default_factory=list[StageTask])
    _ray: Any = None
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> RayRunner:
        tool_version("ray", extra="ray")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def run(self, stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        (result,) = self.run_all([(stage, inputs)])
        return result

    def run_all(self, actions: Sequence[Action]) -> list[Tree]:
        """All at the same time, as far as the nodes have processors. The first that fails stops the others."""
        behind, keys = len(self.runs), list[str]()
        orders: list[Order] = []
        for stage, inputs in actions:
            document = stage.key_document(inputs)
            keys.append(key_of(document))
            if self.store.lookup(keys[-1]) is not None:
                super().run(stage, inputs)
                continue
            self._explain(stage, document)
            orders.append(Order.of(stage, inputs, document, self.store))
        self._carry_out(orders)
        # As they were asked for, not as they happened to end.
        self.runs[behind:] = sorted(self.runs[behind:], key=lambda run: keys.index(run.key or ""))
        return [self._result(key) for key in keys]

    def _carry_out(self, orders: Sequence[Order]) -> None:
        if not orders:
            return
        self._ray = self._ray or self._open.enter_context(connected(self.address))
        options = {"num_cpus": 1, "max_retries": RETRIES, "scheduling_strategy": "SPREAD"}
        task = self._ray.remote(carry_out).options(**options)
        waiting: dict[Future[StageOutcome], tuple[Any, Order]] = {}
        try:
            with Bars(enabled=self.progress, transient=True) as bars:
                for order in orders:
                    reference = task.remote(order)
                    waiting[reference.future()] = reference, order
                while waiting:
                    bars.begin(", ".join(order.stage.label for _, order in waiting.values()))
                    # In Ray's own wait, each signal would be an interrupt.
                    for ended in wait(waiting, return_when=FIRST_COMPLETED).done:
                        _, order = waiting.pop(ended)
                        self._note_task(order, ended)
        finally:
            if waiting:
                self._cancel([reference for reference, _ in waiting.values()])

    def _note_task(self, order: Order, ended: Future[StageOutcome]) -> None:
        try:
            outcome = ended.result()
        except self._ray.exceptions.RayError as error:
            raise UserError(
                f"Ray did not bring the stage {order.stage.label} to an end",
                where=self.address or "a cluster of this machine alone",
                hint="`ray status` on the cluster tells of its nodes; finished stages are kept: build again",
                exit_code=EXIT_UNAVAILABLE,
            ) from cause_of(str(error))
        outcome.check()
        done: StageTask = outcome.result
        explain(f"{done.run.label}: {done.began:.3f} to {done.ended:.3f} on {done.node}")
        self.tasks.append(done)
        self.runs.append(done.run)
        self.tell(done.run)
        self.on_end(order.stage, done.run)

    def _cancel(self, references: list[Any]) -> None:
        """End what runs on nodes, and remove what it leaves in the store: nobody may be there to wait for it."""
        for reference in references:
            self._ray.cancel(reference, force=True)
        self._ray.wait(references, num_returns=len(references), timeout=CANCEL_SECONDS)
        Store.open(self.store.root)

    def _result(self, key: str) -> Tree:
        record = self.store.lookup(key)
        if record is None:
            raise UserError(
                "a node has finished a stage, and its result is not here",
                where=str(self.store.root),
                hint=SHARED,
                exit_code=EXIT_UNAVAILABLE,
            )
        return tree_of(record, self.store)
