"""What a reader is told whose build is not its source."""

from __future__ import annotations

from collections.abc import Collection

from wanc.compiler.check.asked import Asked
from wanc.compiler.check.bisect import CUT, EXPORT, Culprit
from wanc.compiler.check.compare import Difference
from wanc.compiler.check.trials import Trial
from wanc.errors import EXIT_REFUSED, CheckpointError, UserError
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.interface import shown_shape

ANYWAY = "engine.check: off builds it as it is"
KINDS = {"noise": "noise", "edges": "inputs that reach edges", "wide": "integers beyond 32 bits"}


def differs(where: str, trial: Trial, found: Collection[Difference], culprit: Culprit, *, at_others: bool) -> UserError:
    """The error for outputs that are not the source's; `at_others` says that the example's sizes gave no difference."""
    lines = "; ".join(f"{difference.output} {difference.text}" for difference in list(found)[:3])
    return UserError(
        f"{where} is not what its source computes: {lines} (at {sizes_text(trial)}, on {KINDS[trial.kind]}). "
        f"It differs from {culprit} on",
        hint=_hint(culprit, at_others),
        exit_code=EXIT_REFUSED,
    )


def _hint(culprit: Culprit, at_others: bool) -> str:
    if culprit.place == "fuse":
        return f"leave it out, and tell us: fuse.skip: [{culprit.name}]"
    if culprit.name == EXPORT and at_others:
        return "its exporter took sizes of the example for constants: give those sizes as numbers, or export it anew"
    if culprit.name in (EXPORT, CUT):
        return f"tell us what model it is; until then {ANYWAY}"
    return f"tell us, and build with another engine.kind until then; {ANYWAY}"


def check_declared(asked: Asked, trial: Trial, where: str) -> None:
    """Compare the outputs of the source with what its graph says of them. Raises CheckpointError.

    Engines plan by what is declared, and a bundle's manifest repeats it.
    """
    sizes = dict(trial.sizes)
    for output in asked.outputs:
        array = trial.outputs.get(output.name)
        if array is None:
            continue
        fits = array.ndim == len(output.shape) and array.dtype.name == output.dtype
        for size, dimension in zip(array.shape, output.shape, strict=False):
            factor, name = split_dimension(dimension)
            if name and name not in sizes and size % factor == 0:
                sizes[name] = size // factor
            fits = fits and size == (factor * sizes.get(name, -1) if name else factor)
        if not fits:
            raise CheckpointError(
                f"{where}: the output {output.name} is declared as {output.dtype} {shown_shape(output.shape)}, "
                f"and the model computes {array.dtype} {list(array.shape)} at {sizes_text(trial)}",
                hint="write into the file what it computes, or leave such a size without a name",
            )


def sizes_text(trial: Trial) -> str:
    """{h: 18, w: 12}"""
    return "{" + ", ".join(f"{name}: {size}" for name, size in sorted(trial.sizes.items())) + "}"
