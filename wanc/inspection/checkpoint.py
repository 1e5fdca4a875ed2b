"""A Wan checkpoint in either layout: its components as a build would take them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from wanc.inspection.tensors import tally
from wanc.models.wan.checkpoint import read_checkpoint


def describe_checkpoint(root: Path) -> dict[str, Any]:
    """Raises CheckpointError where a file is missing, damaged or of another model."""
    checkpoint = read_checkpoint(root)
    return {
        "kind": "checkpoint",
        "path": str(root),
        "layout": checkpoint.layout,
        "boundary": checkpoint.boundary,
        "causal": {key: mark.value for key, mark in checkpoint.causal.items()},
        "text_length": checkpoint.text_length,
        "size": sum((root / name).stat().st_size for name in checkpoint.files),
        "components": {
            name: {
                "folder": component.folder,
                "config": dict(component.config),
                "weights": tally((weight.dtype, weight.shape) for weight in component.weights.values()),
            }
            for name, component in checkpoint.components.items()
        },
        "doubts": [dataclasses.asdict(doubt) for doubt in checkpoint.doubts],
        "files": list(checkpoint.files),
    }
