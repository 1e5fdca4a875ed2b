"""Where builds go: bundles into an output folder, finished work into a store, which several outputs may share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

OUTPUT_VARIABLE, STORE_VARIABLE = "WANC_OUTPUT", "WANC_STORE"
DEFAULT_OUTPUT = "artifacts"


@dataclass(frozen=True)
class Folders:
    """The folder that has `bundles/`, and the store: `store/` beside that unless it is said to be elsewhere."""

    output: Path
    store: Path

    @classmethod
    def chosen(cls, output: str | Path | None = None, store: str | Path | None = None) -> Folders:
        """What is given, or else what WANC_OUTPUT and WANC_STORE say, or else `artifacts` and the store in the output.

        An empty variable says nothing.
        """
        output = Path(output or os.environ.get(OUTPUT_VARIABLE) or DEFAULT_OUTPUT)
        store = store or os.environ.get(STORE_VARIABLE)
        return cls(output, Path(store) if store else output / "store")

    def bundle(self, name: str) -> Path:
        """Where the bundle of this name is."""
        return self.output / "bundles" / name
