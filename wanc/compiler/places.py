"""Where passes are applied, for those who list them: in `fuse`, and in the lowering of each engine.

No stage imports this: its key would cover the code of all engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wanc.compiler.engines.onnxruntime import passes as onnxruntime
from wanc.compiler.engines.openvino import passes as openvino
from wanc.compiler.engines.tensorrt import passes as tensorrt
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.passes.rewrite import Pass
from wanc.terminal import TextTable

PLACES: Mapping[str, tuple[Pass, ...]] = {
    "fuse": all_passes(),
    "onnxruntime": onnxruntime.PASSES,
    "openvino": openvino.PASSES,
    "tensorrt-rtx": tensorrt.PASSES,
    "tensorrt": tensorrt.PASSES,
}


def list_passes() -> list[dict[str, Any]]:
    """Every pass as JSON, place by place, in the order in which they are applied there."""
    return [{"place": place, **entry} for place, entries in PLACES.items() for entry in map(_as_json, entries)]


def pass_tables() -> Iterator[TextTable]:
    """The same for people, a table for each place."""
    for place, entries in PLACES.items():
        rows = [
            (entry.name, entry.summary, ", ".join(entry.after), "yes" if entry.by_default else "when named")
            for entry in entries
        ]
        title = place if place == "fuse" else f"lowering for {place}"
        yield TextTable(title, rows, ("name", "what it does", "after", "used"))


def _as_json(entry: Pass) -> dict[str, Any]:
    return {key: getattr(entry, key) for key in ("name", "summary", "after", "by_default")}
