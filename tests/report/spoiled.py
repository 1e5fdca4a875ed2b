"""Stages with a fault: what one of them makes of a denoiser gives velocities that are a little too large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.stages.stage import Files, Stage

FACTOR = 1.001
COMPONENT = "denoiser_low"


def spoil(path: Path) -> None:
    """Multiply the one output of a graph; its weights stay where they are."""
    model = onnx.load(path, load_external_data=False)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if output == name else output for output in node.output]
        node.input[:] = ["before" if given == name else given for given in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(FACTOR, np.float32), "too_much"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "too_much"], [name], name="spoiled"))
    path.write_bytes(model.SerializeToString())


class _Spoiling(Stage):
    def key_document(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        sound = type(self).__mro__[2]
        document = sound(**{field.name: getattr(self, field.name) for field in fields(sound)}).key_document(inputs)  # pyright: ignore
        return {**document, "spoiled": FACTOR}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        for path in out.rglob("step*.onnx"):
            if COMPONENT in path.parts:
                spoil(path)


@dataclass(frozen=True)
class SpoiledExport(_Spoiling, Export):
    pass


@dataclass(frozen=True)
class SpoiledFuse(_Spoiling, Fuse):
    pass


@dataclass(frozen=True)
class SpoiledQuantize(_Spoiling, Quantize):
    pass


@dataclass(frozen=True)
class SpoiledCompile(_Spoiling, Compile):
    pass
