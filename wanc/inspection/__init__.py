"""What a bundle, a program, a graph or a store entry is made of. Headers and descriptions are read, weights never."""

from __future__ import annotations

from wanc.inspection.find import inspect
from wanc.inspection.text import tables

__all__ = ["inspect", "tables"]
