"""What is executed within a budget at true scale, and what has to hold of it: ten blocks of A14B, and umT5-xxl."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from scripts.checkpoints.models import UMT5_XXL
from scripts.true_scale import markdown
from scripts.true_scale.blocks import BuiltBlocks, Cache, ten_blocks
from scripts.true_scale.encoder import BUDGET, TOKENS, make_bundle, measured, parameters, prompt_of

Figures = dict[str, Any]
MIB, GIB = 2**20, 2**30
BLOCKS, ENCODER = "blocks", "encoder"
SHARES = (0.5, 0.25)
"""Of the bytes that all engines of the blocks take when they are open: what a budget is, values included."""
CACHES: tuple[Cache, ...] = ("cold", "warm")
PASSES = 2
"""Of a process: the first one finds nothing open."""
MOST_ERROR, MOST_TIMES = 1e-3, 1.3
BESIDE = 400 * MIB
"""What a process may take beside its budget: its code, the libraries, and what a prompt is read with."""
MOST_RSS = 3 * GIB
A_ROW = 16 * 2**10
"""Of the embedding, read from disk: what a row has, in whole pages."""


def blocks(work: Path, rounds: int) -> Figures:
    """Build ten blocks of A14B below `work`, 8 GB, and execute them in and out of budgets, in turn."""
    with ten_blocks(work / "store", work) as built:
        values, whole = built.values, built.compiled.bytes
        row: Figures = {"parameters": built.parameters, "engine_bytes": whole, "values_bytes": values}
        row["errors"] = built.errors(round(min(SHARES) * whole), values)
        row["rounds"] = [_round(built, values, whole) for _ in range(rounds)]
    return {**row, "times": times(row)}


def _round(built: BuiltBlocks, values: int, whole: int) -> Figures:
    found: Figures = {"load": round(os.getloadavg()[0], 1), "resident": built.passes(None, 0, "warm", PASSES)}
    found["dd_seconds"] = {cache: round(built.read_by_dd(cache), 2) for cache in CACHES}
    found["within"] = {
        f"{share:.0%}, {cache}": built.passes(round(share * whole), values, cache, PASSES)
        for cache in CACHES
        for share in SHARES
    }
    return found


def times(row: Mapping[str, Any]) -> dict[str, list[float]]:
    """Of each case and of the medians of all rounds, pass by pass: the time it took, by that of reading what it loads
    with dd, in the same state of the cache, and of computing with all open.
    """
    found: dict[str, list[list[float]]] = {}
    for entry in row["rounds"]:
        resident = entry["resident"]["passes"][-1]["seconds"]
        for case, figures in entry["within"].items():
            dd = entry["dd_seconds"][case.rpartition(" ")[2]] / row["engine_bytes"]
            found.setdefault(case, []).append(
                [one["seconds"] / (resident + dd * one["loaded_bytes"]) for one in figures["passes"]]
            )
    return {case: [round(median(passes), 3) for passes in zip(*rounds, strict=True)] for case, rounds in found.items()}


def encoder(work: Path) -> Figures:
    """Build a bundle with umT5-xxl below `work`, 24 GB, and encode a prompt, the same again, and another one."""
    bundle = make_bundle(work)
    prompts = [prompt_of(UMT5_XXL["vocab_size"], TOKENS, seed) for seed in (0, 0, 1)]
    return {"parameters": parameters(UMT5_XXL), **measured(bundle, prompts, BUDGET)}


def faults(row: Mapping[str, Any], name: str, *, quiet: bool) -> Iterator[str]:
    """What does not hold of a row; seconds count only where the machine did nothing else."""
    yield from (_of_blocks(row, quiet=quiet) if name == BLOCKS else _of_encoder(row))


def _of_blocks(row: Mapping[str, Any], *, quiet: bool) -> Iterator[str]:
    if row["parameters"] < 3.5e9:
        yield f"{row['parameters']} parameters"
    for index, error in enumerate(row["errors"]):
        if not error <= MOST_ERROR:
            yield f"segment {index} is {error:.1e} from its block"
    velocities = {entry["resident"]["velocity"] for entry in row["rounds"]}
    for entry in row["rounds"]:
        for case, figures in entry["within"].items():
            velocities.add(figures["velocity"])
            yield from _memory(case, figures)
            if figures["evictions"] < len(row["errors"]):
                yield f"{case}: {figures['evictions']} files were closed"
    if len(velocities) > 1:
        yield "the velocity depends on the budget"
    for case, passes in row["times"].items() if quiet else ():
        if max(passes) > MOST_TIMES:
            yield f"{case}: {max(passes)} times reading and computing"


def _of_encoder(row: Mapping[str, Any]) -> Iterator[str]:
    if row["parameters"] < 5.68e9:
        yield f"{row['parameters']} parameters"
    yield from _memory("the encoder", row)
    if row["peak_rss_bytes"] > MOST_RSS:
        yield f"{row['peak_rss_bytes'] / GIB:.2f} GiB at the peak"
    first, again, other = row["requests"]
    for request in (first, other):
        if request["tokens"] != TOKENS:
            yield f"a prompt of {request['tokens']} tokens"
        if request["table_bytes_read"] > TOKENS * A_ROW:
            yield f"{request['table_bytes_read']} bytes of the embedding were read"
    if first["engine_bytes_read"] < 0.9 * row["engine_bytes"]:  # of another prompt's, some are open still
        yield f"the first prompt reads {first['engine_bytes_read']} bytes of the encoder"
    if any(again[name] for name in ("loads", "engine_bytes_read", "table_bytes_read")):
        yield f"the same prompt again reads {again}"


def _memory(case: str, figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["peak_bytes"] > figures["budget"]:
        yield f"{case}: {figures['peak_bytes']} bytes of a budget of {figures['budget']}"
    if figures["peak_rss_bytes"] > figures["budget"] + BESIDE:
        yield f"{case}: {figures['peak_rss_bytes']} bytes at the peak, for a budget of {figures['budget']}"


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """For people."""
    lines = ["# Within a budget of memory, at true scale", ""]
    if (row := rows.get(BLOCKS)) is not None:
        lines += _blocks_table(row)
    if (row := rows.get(ENCODER)) is not None:
        lines += _encoder_table(row)
    return "\n".join(lines)


def _blocks_table(row: Mapping[str, Any]) -> list[str]:
    rounds = row["rounds"]
    resident = median(entry["resident"]["passes"][-1]["seconds"] for entry in rounds)
    dd = {cache: median(entry["dd_seconds"][cache] for entry in rounds) for cache in CACHES}
    open_mib, values_mib = (f"{row[name] / MIB:,.0f} MiB" for name in ("engine_bytes", "values_bytes"))
    lines = [
        f"Ten blocks of Wan2.2-T2V-A14B, {row['parameters'] / 1e9:.2f} billion parameters in INT8, a segment each;"
        f" {len(rounds)} rounds, medians. Their engines take {open_mib}, the values of a step {values_mib} beside them."
        f" With all open a step takes {resident:.1f} s. dd reads the engines in {dd['cold']:.1f} s from disk,"
        f" in {dd['warm']:.1f} s from the cache. No segment is further from diffusers' block on the same codes"
        f" than {max(row['errors']):.1e}.",
        "",
        "| budget, files | MiB | peak RSS, MiB | first step, s | next step, s | × reading and computing |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case, passes in row["times"].items():
        figures = [entry["within"][case] for entry in rounds]
        seconds = [median(one["passes"][index]["seconds"] for one in figures) for index in range(PASSES)]
        peak = max(one["peak_rss_bytes"] for one in figures)
        cells = [case, f"{figures[0]['budget'] / MIB:,.0f}", f"{peak / MIB:,.0f}", *(f"{one:.1f}" for one in seconds)]
        lines.append(markdown.row([*cells, ", ".join(f"{one:.2f}" for one in passes)]))
    return [*lines, ""]


def _encoder_table(row: Mapping[str, Any]) -> list[str]:
    lines = [
        f"umT5-xxl, {row['parameters'] / 1e9:.2f} billion parameters, weights in INT8, within"
        f" {row['budget'] / MIB:,.0f} MiB: {row['peak_rss_bytes'] / MIB:,.0f} MiB at the peak of the process.",
        "",
        "| prompt of 512 tokens | s | of the encoder read, MiB | of the embedding, MiB |",
        "| --- | --- | --- | --- |",
    ]
    for name, request in zip(("one", "the same", "another"), row["requests"], strict=True):
        read = (f"{request[key] / MIB:,.1f}" for key in ("engine_bytes_read", "table_bytes_read"))
        lines.append(markdown.row([name, f"{request['seconds']:.1f}", *read]))
    of = " and ".join(f"{row[key] / MIB:,.0f} MiB" for key in ("engine_bytes", "table_bytes"))
    return [*lines, "", f"Of {of}, nothing of which was in the cache before.", ""]
