"""Stands in for what builds an engine, in a process of its own."""

from __future__ import annotations

from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask


def build_engine(task: BuildTask) -> BuildOutcome:
    raise SystemExit(3)
