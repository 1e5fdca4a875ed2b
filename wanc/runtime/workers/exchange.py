"""What the ranks of a segment share, and exchange in front of it: blocks of values along dimension 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..engine_file import EngineFile
from ..errors import TargetError
from ..interface import InputError
from ..pool import Empty
from ..value import Array, Given, Value


def check_shared(shared: Iterable[tuple[str, int]], ranks: int, values: Mapping[str, Given]) -> None:
    """Raises InputError where ranks cannot have equal parts of a graph's inputs; `shared` is as in `Segments`."""
    for name, axis in shared:
        tokens = values[name].shape[axis]
        if tokens % ranks:
            raise InputError(
                f"{ranks} devices cannot have equal parts of {tokens} tokens, which {name} has",
                hint="ask for another size, or for another number of frames",
            )


def exchanged(file: EngineFile, ranks: Sequence[dict[str, Value]], empty: Empty) -> None:
    """Give each rank what it has of the others' values, by what the file says; `ranks` are their values by name.

    all_to_all: block i of dimension 0 goes to rank i, and what rank i sent is in its place. all_gather: what every rank
    has, in their order. It lies in arrays of `empty`'s: where ranks are processes, in memory that they share. Raises
    TargetError where shards are not even.
    """
    for exchange in file.exchanges:
        sent = [values[exchange.given].numpy() for values in ranks]
        shapes = {(array.shape, array.dtype) for array in sent}
        if len(shapes) > 1 or (exchange.operation == "all_to_all" and len(sent[0]) % len(ranks)):
            told = ", ".join(f"{array.dtype.name} {list(array.shape)}" for array in sent)
            raise TargetError(f"{exchange.given} cannot be exchanged by {len(ranks)} ranks, which have {told}")
        if exchange.operation == "all_gather":
            gathered = Value(_joined(sent, empty))
            for values in ranks:
                values[exchange.taken] = gathered
            continue
        blocks = [np.split(array, len(ranks)) for array in sent]
        for rank, values in enumerate(ranks):
            values[exchange.taken] = Value(_joined([shard[rank] for shard in blocks], empty))


def _joined(arrays: Sequence[Array], empty: Empty) -> Array:
    """Arrays of one shape and dtype, one behind the other along dimension 0."""
    first = arrays[0]
    return np.concatenate(arrays, out=empty((len(arrays) * len(first), *first.shape[1:]), first.dtype))
