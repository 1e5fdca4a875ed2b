"""Where in the model a bundle's errors arise: a map of blocks and steps for each expert."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wanc.report.document import ReportDocument, ReportedBundle
from wanc.report.page.drawing import Plot, axis, decades, plot
from wanc.report.values import baseline_of, experts_of
from wanc.report.wording import number, times


def block_errors(report: ReportDocument, entry: ReportedBundle) -> list[Plot]:
    """For each expert the error behind each block at each step, and how many times the baseline's that is."""
    if not (entry.quality and entry.quality.blocks):
        return []
    baseline = baseline_of(report)
    known = baseline.quality.blocks if baseline and baseline.quality and baseline is not entry else []
    before = {(one.expert, one.step, one.block): one.error for one in known if one.error > 0}
    blocks = [one for one in entry.quality.blocks if one.error > 0]
    found = {
        expert: (
            {(one.step, one.block): one.error for one in blocks if one.expert == expert},
            {
                (one.step, one.block): one.error / before[one.expert, one.step, one.block]
                for one in blocks
                if one.expert == expert and (one.expert, one.step, one.block) in before
            },
        )
        for expert in experts_of(blocks)
    }
    # One scale for all experts, so that their colours can be compared.
    errors = [error for values, _ in found.values() for error in values.values()]
    factors = [factor for _, values in found.values() for factor in values.values()]
    plots: list[Plot] = []
    for expert, (values, ratios) in found.items():
        plots.append(_absolute(expert, values, errors))
        if ratios:
            plots.append(_relative(expert, ratios, factors, report.baseline or ""))
    return plots


Blocks = Mapping[tuple[int, int], float]
"""By step and block."""


def _absolute(expert: str, values: Blocks, errors: Sequence[float]) -> Plot:
    (step, block), largest = max(values.items(), key=lambda pair: pair[1])
    low, high = math.log10(min(errors)), math.log10(max(errors))
    ticks, names = decades([low, high])
    return _heat(
        f"Error behind each block: {expert}",
        f"The largest is {number(largest)}, behind block {block} at step {step}.",
        values,
        math.log10,
        number,
        zmin=low,
        zmax=high,
        colorscale=[[share / 3, f"var(--heat-{share})"] for share in range(4)],
        colorbar={"tickvals": ticks, "ticktext": names},
    )


def _relative(expert: str, ratios: Blocks, factors: Sequence[float], baseline: str) -> Plot:
    (step, block), largest = max(ratios.items(), key=lambda pair: pair[1])
    edge = max(1, *(math.ceil(abs(math.log2(factor))) for factor in factors))
    ticks = sorted({-edge, -(edge // 2), 0, edge // 2, edge})
    names = [f"{2**tick}×" if tick >= 0 else f"1/{2**-tick}×" for tick in ticks]
    return _heat(
        f"Times the error of {baseline}: {expert}",
        f"The most is {times(largest)}, behind block {block} at step {step}.",
        ratios,
        math.log2,
        times,
        zmin=-edge,
        zmax=edge,
        colorscale=[[0, "var(--cool)"], [0.5, "var(--neutral)"], [1, "var(--warm)"]],
        colorbar={"tickvals": ticks, "ticktext": names},
    )


def _heat(
    title: str,
    description: str,
    values: Blocks,
    scale: Callable[[float], float],
    written: Callable[[float], str],
    **more: Any,
) -> Plot:
    """A cell for each step and block; those without a value stay empty."""
    steps, blocks = sorted({step for step, _ in values}), sorted({block for _, block in values})
    rows = [[values.get((step, block)) for step in steps] for block in blocks]
    told = [
        [
            "" if value is None else f"block {block}, step {step}: {written(value)}"
            for step, value in zip(steps, row, strict=True)
        ]
        for block, row in zip(blocks, rows, strict=True)
    ]
    z = [[scale(value) if value else None for value in row] for row in rows]
    more["colorbar"] |= {"thickness": 12, "outlinewidth": 0, "tickfont": {"color": "var(--text)"}}
    trace = {"type": "heatmap", "x": steps, "y": blocks, "z": z, "hovertext": told, "hoverinfo": "text", **more}
    height = min(560, max(240, 12 * len(blocks) + 110))
    return plot(
        title,
        description,
        [trace | {"xgap": 1, "ygap": 1}],
        xaxis=axis("step", showgrid=False),
        yaxis=axis("block", showgrid=False, autorange="reversed"),
        height=height,
    )
