"""Makes a Wan checkpoint with random weights: the shape, the layout and the size of a real one, from a seed.

The two layouts of one seed hold the same tensors. Weights are written as they are made, piece by piece. With --sparse,
all weights are zero and take no room on disk, while every header and every size is real.

example:
  python -m scripts.make_checkpoint --config wan2.2-t2v-a14b --layers 2 --layout original artifacts/checkpoints/a14b
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.checkpoints.models import MODELS, Model
from scripts.checkpoints.plan import Plan, Source, plan, write_documents
from scripts.checkpoints.values import random_pieces
from wanc.artifacts.files import output_errors, require_space
from wanc.artifacts.private import abandoned, private_directory
from wanc.compiler.weights.tensor_stream import Entry, Pieces, write_tensors, write_zeros
from wanc.errors import EXIT_USAGE, OutputError, UserError, render
from wanc.models.wan.stored import Layout
from wanc.runtime.progress import ProgressBar


def make(model: Model, layout: Layout, out: Path, *, seed: int, sparse: bool = False, progress: bool = False) -> None:
    """Write the checkpoint to `out`, a folder that does not exist yet, and that is whole once it does.

    Raises OutputError.
    """
    if os.path.lexists(out):
        raise OutputError("is there already", where=str(out), hint="name another folder", exit_code=EXIT_USAGE)
    planned = plan(model, layout)
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}."
    for _ in abandoned(out.parent, prefix=prefix):
        pass  # left by a run that was killed; removed as the iteration goes on
    with private_directory(out.parent, prefix=prefix) as private, output_errors(out):
        staged = private / "checkpoint"
        staged.mkdir()
        write_documents(planned, model, staged)
        if not sparse:
            require_space(private, planned.nbytes)
        _write_weights(planned, staged, seed, sparse=sparse, progress=progress)
        staged.rename(out)


def _write_weights(planned: Plan, folder: Path, seed: int, *, sparse: bool, progress: bool) -> None:
    with ProgressBar("write weights", planned.nbytes, enabled=progress) as bar:
        for name, entries in planned.weights.items():
            if sparse:
                write_zeros(folder / name, list(entries))
                bar.advance(sum(entry.nbytes for entry in entries))
                continue

            def pieces(entry: Entry, sources: dict[Entry, Source] = entries) -> Pieces:
                source = sources[entry]
                return random_pieces(seed, source.component, source.name, entry.shape, entry.dtype)

            write_tensors(folder / name, list(entries), pieces, bar.advance)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and make the checkpoint; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.make_checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--config", choices=sorted(MODELS), default="tiny", help="the model (default: %(default)s)")
    parser.add_argument("--layers", type=_positive, help="layers of denoisers and text encoder (default: the model's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: %(default)s)")
    parser.add_argument("--layout", choices=("diffusers", "original"), default="diffusers")
    parser.add_argument("--sparse", action="store_true", help="all weights zero, in files that are holes")
    given = parser.parse_args(arguments)
    model = MODELS[given.config]
    if given.layers is not None:
        model = model.with_layers(given.layers)
    try:
        make(model, given.layout, given.out, seed=given.seed, sparse=given.sparse, progress=True)
    except UserError as error:
        print(render(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(given.out)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    raise SystemExit(main())
