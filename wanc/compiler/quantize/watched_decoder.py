"""A VAE decoder that is watched while it decodes clips: how far its convolutions' inputs reach, and patches of them.

It is decoded as the runtime does it, one latent frame after the other, with caches handed on; each graph is executed
by pieces of about one convolution, so that memory holds what lies between two of them. A convolution of both graphs is
one: what the first frame gave it counts with what the later ones did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanc.calibration.histogram import Histogram, NotFiniteError
from wanc.compiler.graphs.convolutions import PatchLinear, convolutions
from wanc.compiler.host.chain import Chain, execute
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import UserError
from wanc.runtime import safetensors
from wanc.runtime.decode import decoded
from wanc.runtime.model import Model
from wanc.runtime.pool import Empty
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.value import Given, Value, as_array, as_values

Array = np.ndarray[Any, Any]

MOST_WEIGHT_BYTES = 2**20
"""Of a piece: nearly every convolution of a decoder has more, and is a piece of its own."""
AT_ONCE = 2**22
"""Values that are counted at a time."""
PATCHES, PLACES, FROM = "patches", "places", "/"


@dataclass
class Seen:
    """What was seen of one convolution's input; `places` are those that its window has stood at."""

    histogram: Histogram = field(default_factory=Histogram)
    patches: list[Array] = field(default_factory=list[Array])
    places: int = 0

    def add(self, other: Seen) -> None:
        self.histogram.merge(other.histogram)
        self.patches += other.patches
        self.places += other.places


class WatchedDecoder:
    """The decoder of a program. `zeros` names the weights that may be nothing but zeros; pieces lie in `folder`."""

    def __init__(self, files: ComponentFiles, model: Model, folder: Path, zeros: Sequence[str] | None) -> None:
        graphs = files.component.graphs
        self._model = model
        self._graphs = files.component.interfaces
        self._chains: dict[str, Chain] = {}
        self._here: dict[str, list[list[PatchLinear]]] = {}
        finite = FiniteCheck(files.name, zeros=zeros)
        for graph in graphs:
            canonical, place = files.model(graph), folder / graph
            place.mkdir()
            taps = [str(convolution.input.name) for convolution in convolutions(canonical)]
            chain = Chain(
                canonical, files.weights, place, finite, taps=taps, most_weight_bytes=MOST_WEIGHT_BYTES, threads=1
            )
            self._chains[graph] = chain
            self._here[graph] = [convolutions(piece.model) for piece in chain.pieces]

    def watch(self, latents: Array, patches: int, random: np.random.Generator) -> dict[str, Seen]:
        """Decode latents, float32 [1, channels, frames, height, width], and tell what was seen of each convolution.

        `patches` are taken of each input in every execution. Raises UserError where an input is not finite.
        """
        watch = _Watch(self._chains, self._here, patches, random)
        for _ in decoded([latents], self._model.latent_mean, self._model.latent_std, watch, self._graphs):
            pass
        return watch.seen


class _Watch:
    """In place of the runtime's executor, for one clip."""

    def __init__(
        self,
        chains: Mapping[str, Chain],
        here: Mapping[str, list[list[PatchLinear]]],
        patches: int,
        random: np.random.Generator,
    ) -> None:
        self._chains, self._here, self._patches, self._random = chains, here, patches, random
        self.seen: dict[str, Seen] = {}

    @property
    def empty(self) -> Empty:
        return np.empty

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> dict[str, Value]:
        del component
        chain, state = self._chains[graph], {name: as_array(value) for name, value in inputs.items()}
        for index, piece in enumerate(chain.pieces):
            with chain.open(index) as session:
                state |= execute(session, piece, state)
            for convolution in self._here[graph][index]:
                self._look(convolution, state[str(convolution.input.name)])
            needed = chain.needed_behind(index)
            state = {name: array for name, array in state.items() if name in needed}
        return as_values(state)

    def _look(self, convolution: PatchLinear, values: Array) -> None:
        seen, flat = self.seen.setdefault(convolution.name, Seen()), values.reshape(-1)
        try:
            for start in range(0, len(flat), AT_ONCE):
                seen.histogram.add(flat[start : start + AT_ONCE])
        except NotFiniteError:
            hint = "the float model itself overflows there: quantisation cannot mend that"
            raise UserError(f"the input of {convolution.name} is not finite", hint=hint) from None
        places = convolution.places(values.shape[2:])
        for _ in range(self._patches):
            picture, *place = (int(self._random.integers(size)) for size in (len(values), *places))
            seen.patches.append(convolution.patch(values[picture], place))
        seen.places += len(values) * int(np.prod(places))


def write_seen(path: Path, seen: Mapping[str, Seen]) -> None:
    """Write what was seen of one clip into a safetensors file, as `<convolution>/<what>`."""
    arrays: dict[str, Array] = {}
    for name, one in seen.items():
        own = {**one.histogram.as_arrays(), PATCHES: np.stack(one.patches), PLACES: np.array(one.places, np.int64)}
        arrays |= {f"{name}{FROM}{what}": np.atleast_1d(array) for what, array in own.items()}
    safetensors.write(path, arrays)


def read_seen(path: Path) -> dict[str, Seen]:
    """What `write_seen` wrote. Raises BundleError for a damaged file."""
    file, found = SafetensorsFile(path), dict[str, Seen]()
    for name in sorted({key.rpartition(FROM)[0] for key in file}):
        own = {what: file[f"{name}{FROM}{what}"].copy() for what in ("counts", "exponent", "peak", PATCHES, PLACES)}
        scalars = {what: own[what][0] for what in ("exponent", "peak")}
        histogram = Histogram.from_arrays({"counts": own["counts"], **scalars})
        found[name] = Seen(histogram, list(own[PATCHES]), int(own[PLACES][0]))
    return found
