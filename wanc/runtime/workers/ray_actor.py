"""A device's actor, where Ray has put it: it verifies the bundle that lies there, and executes the device's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from ..cores import available_cores
from ..engine_file import Key
from ..engine_runner import EngineRunner
from ..errors import BundleError, VerificationError
from ..openings import Openings
from ..strict_json import JsonObject
from ..value import Array, Value
from .plan import DevicePlan
from .ray_cluster import node_name
from .remote_error import error_as_json


@dataclass(frozen=True)
class ActorPlan:
    """What an actor has to know: where the bundle lies, which it is, and how its device opens engine files."""

    root: str
    bundle_id: str
    device: str
    threads: int
    thrifty: tuple[str, ...]


@dataclass(frozen=True)
class ActorAnswer:
    """What an actor on a `node` has made of an execution: outputs, or the fault in words; and seconds in the engine."""

    node: str
    outputs: Mapping[str, Array]
    error: JsonObject | None = None
    seconds: float = 0.0


class DeviceActor:
    """The device, where it is. Ray calls one method at a time."""

    def __init__(self, plan: ActorPlan) -> None:
        self._plan = plan
        self._opened: tuple[DevicePlan, EngineRunner] | None = None
        self._seconds = 0.0

    def hello(self) -> ActorAnswer:
        """Verify the bundle."""
        return self._told(dict)

    def execute(self, bundle_id: str, index: int, inputs: Mapping[str, Array], unwanted: list[int]) -> ActorAnswer:
        """Execute a file of the device's, by its number, behind closing the `unwanted` ones."""
        return self._told(lambda: self._outputs(bundle_id, index, inputs, unwanted))

    def _told(self, work: Callable[[], Mapping[str, Array]]) -> ActorAnswer:
        try:
            self._opened = self._opened or self._open()
            return ActorAnswer(node_name(), work(), seconds=self._seconds)
        except Exception as error:  # which travels in words
            return ActorAnswer(node_name(), {}, error_as_json(error))

    def _open(self) -> tuple[DevicePlan, EngineRunner]:
        plan = self._plan
        bundle = Bundle.open(Path(plan.root))
        if bundle.manifest.id != plan.bundle_id:
            raise VerificationError(f"another bundle lies there on {node_name()}", where=plan.root)
        files = [file for segments in bundle.engines.values() for file in segments.files]
        own = DevicePlan.of(plan.device, bundle.folder, files, plan.threads, frozenset(), plan.thrifty)
        threads = min(plan.threads or available_cores(), available_cores())
        return own, EngineRunner(own.folder, own.files, Openings(threads, {}), self._note, thrifty=own.thrifty)

    def _outputs(
        self, bundle_id: str, index: int, inputs: Mapping[str, Array], unwanted: list[int]
    ) -> Mapping[str, Array]:
        assert self._opened is not None
        own, runner = self._opened
        if bundle_id != self._plan.bundle_id:
            raise BundleError("this device was asked about another bundle", where=self._plan.root)
        runner.residency.close([own.files[entry] for entry in unwanted])
        file = own.files[index]
        if set(inputs) != set(file.inputs):
            raise BundleError(f"{file.file} was given {', '.join(sorted(inputs))}", where=self._plan.root)
        found = runner.run(file, {name: Value(array) for name, array in inputs.items()})
        return {name: found[name].numpy() for name in file.outputs}

    def _note(self, _: Key, seconds: float) -> None:
        self._seconds = seconds
