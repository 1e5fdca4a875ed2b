"""The export stage for any torch module: traced in memory, its weights written beside the program."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.errors import RecipeError, UserError
from wanc.models.graph import Graph, Input, Output
from wanc.models.torch_source import import_root
from wanc.quiet import quiet
from wanc.runtime.dimensions import Dimension, Dtype
from wanc.runtime.interface import COMPONENT, GRAPH
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
NO_TRACE = "are the inputs those of forward, in order, and do the sizes under example work together?"
NO_OPERATOR = "ONNX has no such operator: write that line with others"


@dataclass(frozen=True)
class TorchInput:
    """An argument of the module's forward, as the recipe describes it."""

    name: str
    dtype: Dtype
    shape: tuple[Dimension, ...]


@dataclass(frozen=True)
class ExportTorch(Stage):
    """Input `source`: the files of the function's package. Result: `program.json`, one graph, and its weights.

    The function runs here, and only here: in the stage's own process, at a build that has not run it before. So where
    the build `is_checked`, what the module itself gives is recorded here as well (`check.torch_source`).
    """

    name: ClassVar[str] = "export"
    tools: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnx-ir", "onnxscript", "numpy")

    factory: str
    inputs: tuple[TorchInput, ...]
    outputs: tuple[str, ...] | None
    example: Mapping[str, int]
    values: Mapping[str, float]
    is_checked: bool = False

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.check.asked import Asked
        from wanc.compiler.check.torch_source import record
        from wanc.compiler.program.graph_file import save
        from wanc.compiler.weights.own_file import store_weights
        from wanc.models.torch_module import load_module

        file = f"{COMPONENT}/{GRAPH}.onnx"
        with ProgressBar(self.name, 2, enabled=progress) as bar:
            module = load_module(self.factory, import_root(inputs["source"]))
            bar.advance()
            model, traced = self._trace(self._declared(module))
            (out / COMPONENT).mkdir()
            weights = store_weights(model, out)
            save(model, out / file)
            entry = ProgramGraph(file, traced.inputs, traced.outputs, traced.example, traced.values)
            if self.is_checked:
                record(module, Asked.of(entry, model), out)
            bar.advance()
        Program("graph", None, {COMPONENT: ProgramComponent({GRAPH: entry}, weights)}, None).write(out)

    def _declared(self, module: torch.nn.Module) -> Graph:
        """The graph as far as it is known before it is traced: without its outputs."""
        inputs = tuple(Input(entry.name, entry.shape, "request", "request", entry.dtype) for entry in self.inputs)
        return Graph(GRAPH, lambda: module, inputs, (), self.example, values=self.values)

    def _trace(self, declared: Graph) -> tuple[ir.Model, Graph]:
        from wanc.compiler.export.stateless import check_stateless
        from wanc.compiler.export.tracing import example_arguments, finish, trace_real
        from wanc.models.foreign_errors import as_cause

        # torch would log the traceback of what is told below.
        logging.disable(logging.CRITICAL)
        try:
            with quiet():
                check_stateless(declared.build(), example_arguments(declared), self.factory)
            model = trace_real(declared)
            self._check_sizes(model, declared)
            traced = replace(declared, outputs=self._outputs(model, declared))
            return finish(model, traced), traced
        except UserError:
            raise
        except Exception as error:  # torch's exceptions share no base class
            cause = as_cause(error)
            hint = NO_OPERATOR if str(cause).startswith("No ONNX function") else NO_TRACE
            raise RecipeError(f"torch cannot trace {self.factory}", hint=hint) from cause
        finally:
            logging.disable(logging.NOTSET)

    def _check_sizes(self, model: ir.Model, declared: Graph) -> None:
        """A size that torch took for a constant would be one that the bundle cannot change, silently."""
        if len(model.graph.inputs) != len(declared.inputs):
            used, given = len(model.graph.inputs), len(declared.inputs)
            raise RecipeError(f"{self.factory}: {given} inputs are given; forward uses {used}")
        for value, entry in zip(model.graph.inputs, declared.inputs, strict=True):
            assert value.shape is not None
            for found, dimension in zip(value.shape, entry.shape, strict=True):
                if str(found).isdecimal() and isinstance(dimension, str):
                    raise RecipeError(
                        f"{self.factory}: the size {dimension} of {entry.name} cannot change, it is always {found}",
                        hint=f"write {found} in its place, or give another size under example",
                    )

    def _outputs(self, model: ir.Model, declared: Graph) -> tuple[Output, ...]:
        found = model.graph.outputs
        names = self.outputs or tuple(f"output_{index}" for index in range(len(found)))
        if len(names) != len(found):
            raise RecipeError(f"{self.factory}: outputs names {len(names)} of {len(found)} results")
        sizes = {
            str(size): dimension
            for value, entry in zip(model.graph.inputs, declared.inputs, strict=True)
            for size, dimension in zip(value.shape or (), entry.shape, strict=True)
        }
        return tuple(_output(name, value, sizes) for name, value in zip(names, found, strict=True))


def _output(name: str, value: ir.Value, sizes: Mapping[str, Dimension]) -> Output:
    """Sizes of an output that are those of inputs keep their name; others are called after the output."""
    assert value.shape is not None and value.dtype is not None
    shape = tuple(
        size if isinstance(size, int) else sizes.get(str(size), f"{name}_{axis}")
        for axis, size in enumerate(value.shape)
    )
    return Output(name, shape, dtype=value.dtype.numpy().name)  # pyright: ignore[reportArgumentType]
