"""Executing a component's whole graph at build time, piece by piece, so that its weights need not fit in memory.

Calibration runs a model long before it is built for its target, and takes ONNX Runtime for it whatever the target is.
A piece's weights are brought into float32 once, in a file of its own, and mapped while the piece is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.engines.onnxruntime.int8 import INTEGERS
from wanc.compiler.engines.onnxruntime.kernels import KERNELS
from wanc.compiler.engines.onnxruntime.masks import MASKS
from wanc.compiler.graphs.by_bytes import cut_by_bytes
from wanc.compiler.graphs.pieces import Piece
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile
from wanc.runtime.backends.onnxruntime import OnnxRuntime, session_options

Array = np.ndarray[Any, Any]
Values = dict[str, Array]

MOST_WEIGHT_BYTES = 256 * 2**20
"""Of one piece in float32: a block of the 1.3B model is 186 MiB, half of a block's feed-forward of 14B 283 MB."""


class Chain:
    """The pieces of a graph, ready to be executed.

    `taps` are values that are given besides the graph's outputs. `weights` locates what external tensors name, and
    `folder` is where pieces are written. A graph of one piece stays open.

    0 `threads` are all cores. What denoisers and text encoders compute does not depend on them; a product of two
    activations of few columns would, and a convolution of a small picture, as a VAE's: their sums are parted otherwise.
    """

    def __init__(
        self,
        model: ir.Model,
        weights: Files,
        folder: Path,
        finite: FiniteCheck,
        *,
        taps: Iterable[str] = (),
        most_weight_bytes: int = MOST_WEIGHT_BYTES,
        threads: int = 0,
    ) -> None:
        self.pieces = cut_by_bytes(model, most_weight_bytes)
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._weights, self._folder, self._finite, self._taps = weights, folder, finite, set(taps)
        self._threads = threads
        self._files: dict[int, Path] = {}
        self._kept: OnnxRuntime | None = None

    def run(self, inputs: Sequence[Mapping[str, Array]]) -> list[Values]:
        """The graph's outputs for each of some inputs. Every piece is opened once for all of them."""
        states = [dict(given) for given in inputs]
        for index in range(len(self.pieces)):
            with self.open(index) as session:
                states = self.behind(index, session, states)
        return states

    def run_once(
        self, inputs: Sequence[Mapping[str, Array]], on_piece: Callable[[], None] = lambda: None
    ) -> list[Values]:
        """The same, where nothing is executed again: the files of one piece lie on the disk at a time."""
        states = [dict(given) for given in inputs]
        for index in range(len(self.pieces)):
            with self.open(index) as session:
                states = self.behind(index, session, states)
            self.forget(index)
            on_piece()
        return states

    def behind(self, index: int, session: OnnxRuntime, states: Iterable[Mapping[str, Array]]) -> list[Values]:
        """What is known behind a piece that a session executes, and needed from there on."""
        needed = self.needed_behind(index)
        after = ({**state, **execute(session, self.pieces[index], state)} for state in states)
        return [{name: array for name, array in state.items() if name in needed} for state in after]

    def needed_behind(self, index: int) -> set[str]:
        """The values that pieces behind this one take, and the graph's outputs."""
        return self.taken_behind(index) | set(self._outputs)

    def taken_behind(self, index: int) -> set[str]:
        """The values that pieces behind this one take."""
        return {name for piece in self.pieces[index + 1 :] for name in piece.inputs}

    @contextmanager
    def open(self, index: int) -> Generator[OnnxRuntime]:
        """A piece's session; its outputs are the piece's, and the taps inside it."""
        if self._kept is not None:
            yield self._kept
            return
        session = self._open(self.file(index))
        if len(self.pieces) == 1:
            self._kept = session
        yield session

    @contextmanager
    def open_quantized(self, index: int, decisions: Mapping[str, StoredDecision]) -> Generator[OnnxRuntime]:
        """A piece's session with some of its Linears quantised, and no taps."""
        model = self.pieces[index].model.clone()
        insert_quantizers(model, decisions)
        path = self._write(model, f"variant-{index}")
        try:
            yield self._open(path)
        finally:
            for file in (path, path.with_suffix(".bin")):
                file.unlink()

    def forget(self, index: int) -> None:
        """Remove a piece's files: together they are the component in float32. A later use writes them again."""
        self._kept = None
        if (path := self._files.pop(index, None)) is not None:
            for file in (path, path.with_suffix(".bin")):
                file.unlink()

    def file(self, index: int) -> Path:
        """The piece as ONNX Runtime takes it, written when it is first used."""
        if index not in self._files:
            model = self.pieces[index].model.clone()
            outputs = {str(value.name) for value in model.graph.outputs}
            inside = {str(value.name): value for node in model.graph for value in node.outputs}
            model.graph.outputs.extend(inside[name] for name in sorted(self._taps - outputs) if name in inside)
            self._files[index] = self._write(model, f"piece-{index}")
        return self._files[index]

    def _write(self, model: ir.Model, name: str) -> Path:
        apply_passes(model, [INTEGERS, MASKS, KERNELS], where=name)
        with WeightFile(self._folder / f"{name}.bin", self._weights, self._finite) as stored:
            stored.absorb(model)
        path = self._folder / f"{name}.onnx"
        save(model, path)
        return path

    def _open(self, path: Path) -> OnnxRuntime:
        options = session_options(self._threads)
        # What is not allocated in one arena goes back when a piece is closed.
        options.enable_cpu_mem_arena = False
        return OnnxRuntime(path, self._threads, options=options)


def chain_of(files: ComponentFiles, graph: str, folder: Path) -> Chain:
    """One of a component's graphs, ready to be executed from `folder`, which is made."""
    folder.mkdir(parents=True)
    return Chain(files.model(graph), files.weights, folder, FiniteCheck(files.name))


def execute(session: OnnxRuntime, piece: Piece, state: Mapping[str, Array]) -> Values:
    """A piece's outputs, and its taps, for what is known so far."""
    outputs = session.run({name: state[name] for name in piece.inputs})
    return dict(zip(session.outputs, outputs, strict=True))
