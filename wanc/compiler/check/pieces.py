"""A graph that is executed piece by piece, so that its weights need not fit in memory, nor on the disk in float32."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from wanc.compiler.check.trials import Arrays
from wanc.compiler.host.chain import Chain, Values
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.weights.finite import FiniteCheck


def by_pieces(files: ComponentFiles, graph: str, folder: Path, allowed: Collection[str], inputs: Arrays) -> Values:
    """What one of a component's graphs gives, executed by the host; what that takes is written below `folder`.

    Weights of the names in `allowed` may hold NaNs and infinities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        # On one thread, as engines are executed for the record.
        pieces = Chain(files.model(graph), files.weights, Path(scratch), FiniteCheck(files.name, allowed), threads=1)
        (outputs,) = pieces.run_once([inputs])
    return outputs
