"""Stages with a fault: what one of them makes of a component gives results that are a little too large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.quantize.decoder import QuantizeDecoder
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.stages.stage import Files, Stage
from wanc.runtime.model import DECODER, LOW, TEXT_ENCODER

FACTOR = 1.001
RESULTS = ("hidden", "velocity", "frames")


def spoil(path: Path) -> None:
    """Multiply the result of a graph, if it has one; its weights stay where they are."""
    model = onnx.load(path, load_external_data=False)
    name = model.graph.output[0].name
    if name not in RESULTS:
        return
    for node in model.graph.node:
        node.output[:] = ["before" if output == name else output for output in node.output]
        node.input[:] = ["before" if given == name else given for given in node.input]
    before = model.graph.value_info.add()
    before.CopyFrom(model.graph.output[0])
    before.name = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(FACTOR, np.float32), "too_much"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "too_much"], [name], name="spoiled"))
    path.write_bytes(model.SerializeToString())


class _Spoiling(Stage):
    spoils: ClassVar[str] = LOW

    def key_document(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        sound = next(one for one in type(self).__mro__ if not issubclass(one, _Spoiling))
        document = sound(**{field.name: getattr(self, field.name) for field in fields(sound)}).key_document(inputs)  # pyright: ignore
        return {**document, "spoiled": f"{self.spoils} by {FACTOR}"}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        for path in out.rglob("*.onnx"):
            if self.spoils in path.parts:
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


class SpoiledTextExport(SpoiledExport):
    spoils = TEXT_ENCODER


class SpoiledTextFuse(SpoiledFuse):
    spoils = TEXT_ENCODER


class SpoiledTextCompile(SpoiledCompile):
    spoils = TEXT_ENCODER


@dataclass(frozen=True)
class SpoiledTextQuantize(_Spoiling, QuantizeTextEncoder):
    spoils = TEXT_ENCODER


class SpoiledDecoderExport(SpoiledExport):
    spoils = DECODER


class SpoiledDecoderFuse(SpoiledFuse):
    spoils = DECODER


class SpoiledDecoderCompile(SpoiledCompile):
    spoils = DECODER


@dataclass(frozen=True)
class SpoiledDecoderQuantize(_Spoiling, QuantizeDecoder):
    spoils = DECODER
