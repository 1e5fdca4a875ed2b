"""Graphs on disk: `.onnx` files whose weights lie elsewhere, written so that equal graphs are equal bytes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

# The largest graphs are some 15,000 nodes; anything of this size carries weights that it should refer to. A foreign
# file may have 64 MiB, and gains a little when its weights' files get the names that they have here.
MAX_BYTES = 80 * 2**20


def save(model: ir.Model, path: Path) -> None:
    """Write a graph. External tensors stay references: their (location, offset, length) are written as they are."""
    proto = ir.to_proto(model)
    # A rewriter collects the domains that it uses in a set, whose order is another one in every process.
    for scope in (proto, *proto.functions):
        scope.opset_import.sort(key=lambda entry: entry.domain)
    data = proto.SerializeToString(deterministic=True)
    assert len(data) <= MAX_BYTES, f"{path.name} is {len(data)} bytes: a weight was embedded"
    path.write_bytes(data)


def load(path: Path) -> ir.Model:
    """Read a graph; no weight is read."""
    return ir.from_proto(onnx.load_model(path, load_external_data=False))
