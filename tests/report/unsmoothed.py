"""A quantize stage with a fault: one group of Linears is not smoothed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

from wanc.compiler.quantize import decisions
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.stages.stage import Files


@dataclass(frozen=True)
class WithoutSmoothing(Quantize):
    """The groups of `component` in which a Linear named `linear` is keep the peaks of their input."""

    linear: str = ""

    def key_document(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        sound = {field.name: getattr(self, field.name) for field in fields(Quantize)}
        return {**Quantize(**sound).key_document(inputs), "unsmoothed": self.linear}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        best_alpha = decisions.best_alpha

        def search(statistics: Any, weights: Any) -> float | None:
            return None if self.linear in weights.names else best_alpha(statistics, weights)

        with patch.object(decisions, "best_alpha", search):
            super().run(inputs, out, progress=progress)
