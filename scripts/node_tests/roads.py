"""What a case's model gives: as it is, by plain onnxruntime, and by what wanc makes of it, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from wanc.compiler.bundle.built_graph import BuiltGraph
from wanc.compiler.engines.compiled import FILE as COMPILED
from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.kernels import check_fused
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.segment import CPU, whole
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.fuse import Fuse
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.host.reference import Reference
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.stages.stage import Files, Stage
from wanc.models.graph import Input
from wanc.models.onnx_file import open_onnx
from wanc.recipe.schema import PARTS
from wanc.runtime.backends.onnxruntime import FATAL_ONLY
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.interface import COMPONENT, Interface

ENGINES: Mapping[str, Engine] = {
    engine.name: engine for engine in (OnnxRuntimeEngine(), OpenVinoEngine("fp32", ()))
}  # fmt: skip
WITHOUT_ARRAYS = frozenset(
    number for name, number in onnx.TensorProto.DataType.items() if re.match("BFLOAT16|FLOAT[48]|U?INT[24]$", name)
)


class PlainError(Exception):
    """What plain onnxruntime says against a model."""


def plain(model: onnx.ModelProto, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The outputs of an untouched model, by name, with onnxruntime's optimisations off.

    None where its Python interface has no arrays of such a type. Raises PlainError where the library has no kernel for
    the model, or fails.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if any(
            value.type.tensor_type.elem_type in WITHOUT_ARRAYS for value in (*model.graph.input, *model.graph.output)
        ):
            return None
        names = [output.name for output in session.get_outputs()]
        given = {name: value for name, value in inputs.items() if value is not None}
        return dict(zip(names, session.run(names, given), strict=True))
    except Exception as error:  # its exceptions share no base class
        raise PlainError(str(error)) from error


@dataclass(frozen=True)
class Road:
    """What wanc makes of one model in a folder of its own, without store and seal; the stages are those of a build."""

    engine: Engine
    folder: Path

    def run(self, model: onnx.ModelProto, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the built engine gives, by name. Raises UserError where wanc refuses, and else what is a fault of it."""
        path = self.folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        opened = open_onnx(path)
        source = dict(opened.files)
        exported = self._stage(ExportOnnx(_example(opened.inputs, inputs), {}), {"source": source})
        program = self._stage(Fuse(None, (), PARTS), {"program": exported})
        trees = {"program": program, "exported": exported, "source": source}
        files = ComponentFiles.read(COMPONENT, trees)
        compiled = Compiled.read(self._stage(Compile(self.engine, whole(files), CPU), trees)[COMPILED])
        graphs = lowerable(files)
        (entry,) = graphs.values()
        Interface(entry.graph.inputs, entry.graph.outputs).check(
            {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
        )
        folder, compiler = self.folder / Compile.name, self.engine.compiler(CPU)
        built = BuiltGraph(compiler, entry.graph, compiled.files, folder, lambda: Reference(files, graphs, folder, ()))
        outputs = built.run(inputs)
        check_fused(built.where, entry.model, built.kernels(), (), compiler.has_kernel)
        return outputs

    def _stage(self, stage: Stage, inputs: Mapping[str, Files]) -> Files:
        out = self.folder / stage.name
        out.mkdir()
        stage.run(inputs, out, progress=False)
        return {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}


def _example(declared: Iterable[Input], given: Mapping[str, Any]) -> dict[str, int]:
    """The named sizes of inputs, as the case's arrays have them."""
    sizes: dict[str, int] = {}
    for entry in declared:
        shape = given[entry.name].shape if entry.name in given else ()
        for dimension, size in zip(entry.shape, shape, strict=False):
            factor, name = split_dimension(dimension)
            if name:
                sizes[name] = size // factor
    return sizes
