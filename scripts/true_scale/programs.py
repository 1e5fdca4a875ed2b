"""Wan2.2-T2V-A14B's graphs, exported and fused by wanc's own stages, over a checkpoint that is holes.

A hole reads as zeros, and TensorRT stores equal weights once: engines of zeros would be far too small. So what a
measurement builds of is filled with random numbers first, tensor by tensor, and nothing else: a model of forty blocks
need not be on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.checkpoints.models import MODELS, Model
from scripts.checkpoints.values import random_pieces
from scripts.make_checkpoint import make
from wanc.artifacts.canonical import digest_of
from wanc.artifacts.private import private_directory
from wanc.artifacts.store import Store
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.graphs.by_blocks import block_of
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Tree
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.recipe.schema import PARTS
from wanc.runtime.voice import say

A14B = MODELS["wan2.2-t2v-a14b"]
FUSE = Fuse(None, (), PARTS)
"""As a recipe has it that says nothing of it."""
STORED = {"BFLOAT16": "BF16", "FLOAT": "F32"}
SEED = 0

Inputs = Mapping[str, Files]
"""What the stages behind `fuse` are given of a model: `program`, `exported` and `source`."""


@dataclass(frozen=True)
class TrueScale:
    """A14B, or another `base`, with one of its experts, whose `blocks` may be fewer: every width is real.

    What was exported and fused stays in the `store`, from which another measurement takes it.
    """

    blocks: int
    store: Path
    base: Model = A14B

    @property
    def model(self) -> Model:
        return replace(self.base, denoiser={**self.base.denoiser, "num_layers": self.blocks}, boundary=None)

    @contextmanager
    def inputs(self, work: Path) -> Generator[Inputs]:
        """The model as stages are given it, with a checkpoint of its own below `work`, for a while."""
        store = Store.open(self.store)
        with store.session(on_wait=say), private_directory(work, prefix="checkpoint-") as folder:
            root = folder / "model"
            make(self.model, "diffusers", root, seed=SEED, sparse=True)
            checkpoint = open_checkpoint(root)
            files = {name: root / name for name in checkpoint.files}
            # Of a checkpoint the export reads where weights lie, which its configuration says, and no value.
            layout = digest_of({"denoiser": {**self.model.denoiser}, "text_encoder": {**self.model.text_encoder}})
            source = Tree({name: f"{layout}/{name}" for name in files}, lambda: files)
            runner = Runner(store, progress=False)
            exported = runner.run(Export(tuple(checkpoint.components)), {"source": source})
            fused = runner.run(FUSE, {"program": exported})
            yield {"program": fused.locate(), "exported": exported.locate(), "source": files}


def weights_of(files: ComponentFiles, segment: Segment) -> list[str]:
    """The names of the weights that a segment may use: those of its blocks, and those that are of no block."""
    own = {None, *range(segment.first, segment.stop)}
    blocks = files.component.blocks
    return [name for name in files.component.weights if block_of(name, blocks) in own]


def fill(files: ComponentFiles, chosen: Callable[[str], bool]) -> None:
    """Write random numbers into the holes of the weights whose names are `chosen`, each from a seed of its own."""
    for name, weight in files.component.weights.items():
        if chosen(name):
            with files.weights[weight.file].open("r+b") as file:
                file.seek(weight.offset)
                for piece in random_pieces(SEED, files.name, name, weight.shape, STORED[weight.dtype]):
                    file.write(piece.data)
