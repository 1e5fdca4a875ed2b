"""The QuantTable: of every Linear and attention of a component, how it is computed, what that costs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from wanc.artifacts.canonical import canonical
from wanc.compiler.first_fault import first_fault
from wanc.errors import BundleError

FLOAT = "float"
TABLES = "quantization"
"""The folder of tables beside a program, and in a bundle."""


def significant(value: float, digits: int) -> float:
    """A figure with so many digits: those behind say more of the machine than of the model."""
    return float(f"{value:.{digits - 1}e}")


def table_file(component: str) -> str:
    """Where it lies beside the program, and in a bundle."""
    return f"{TABLES}/{component}.json"


@dataclass(frozen=True)
class QuantTableEntry:
    """One Linear.

    `scheme` is a recipe's, or `float`. `flops_share` is its share of the FLOPs of all the component's Linears, at the
    sizes of calibration; `position` that of its block from 0, the first, to 1, the last, None outside of blocks.
    `sqnr_db` is that of its outputs on calibration's rows, to 0.01 dB, `activation_scale` what a code of 1 of its input
    stands for, to six digits, `alpha` how its input was smoothed: None where there is no such thing. `effect` is what
    quantising it alone adds to the final latents, the squared error over their square, to first order and to four
    digits; of the text encoder it is the squared error of the text states. None where that was not measured.
    """

    scheme: str
    reason: str
    flops_share: float
    position: float | None
    sqnr_db: float | None = None
    activation_scale: float | None = None
    alpha: float | None = None
    effect: float | None = None


@dataclass(frozen=True)
class AttentionEntry:
    """One attention.

    `scheme` is `fp8` or `float`, `position` as that of a Linear. The scales are what a code of 1 of queries, keys and
    values stands for, to six digits: of queries before they are multiplied by the attention's own scale.
    `probability_scale` is the same for all attentions, whatever the samples were. None where nothing is rounded.
    """

    scheme: str
    reason: str
    position: float | None
    query_scale: float | None = None
    key_scale: float | None = None
    value_scale: float | None = None
    probability_scale: float | None = None


@dataclass(frozen=True)
class QuantTable:
    """All Linears and attentions of a component by canonical name."""

    component: str
    method: Literal["ptq", "qat"]
    samples: int
    linears: Mapping[str, QuantTableEntry]
    attentions: Mapping[str, AttentionEntry] = field(default_factory=dict[str, AttentionEntry])
    schema: Literal["wanc.quant_table/1.0"] = "wanc.quant_table/1.0"

    @property
    def quantized(self) -> dict[str, QuantTableEntry]:
        """Those that do not stay in float."""
        return {name: entry for name, entry in self.linears.items() if entry.scheme != FLOAT}

    def as_json(self) -> dict[str, Any]:
        return _adapter().dump_python(self, mode="json")

    def write(self, out: Path) -> None:
        """Write it below `out`, in canonical form."""
        path = out / table_file(self.component)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(canonical(self.as_json()))

    @classmethod
    def read(cls, path: Path) -> QuantTable:
        """Read what `write` wrote. Raises BundleError for anything else."""
        try:
            return _adapter().validate_json(path.read_bytes())
        except ValidationError as error:
            raise BundleError(f"is no QuantTable: {first_fault(error)}", where=str(path)) from None


@cache
def _adapter() -> TypeAdapter[QuantTable]:
    return TypeAdapter(QuantTable)
