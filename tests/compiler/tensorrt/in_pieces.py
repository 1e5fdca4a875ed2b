"""Builds another graph than it is given: one in which something else looks at the scores, so that they are no part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from tests.compiler.tensorrt import rtx_in_place
from wanc.compiler.engines.tensorrt.attention import SCORES
from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask


def build_engine(task: BuildTask) -> BuildOutcome:
    model = ir.load(task.graph)
    scores = next(node for node in model.graph if str(node.name).endswith(SCORES))
    model.graph.outputs.append(scores.outputs[0])
    with TemporaryDirectory(dir=Path(task.engine).parent) as folder:
        changed = Path(folder) / "changed.onnx"
        ir.save(model, changed, external_data="changed.bin")
        return rtx_in_place.build_engine(replace(task, graph=str(changed)))
