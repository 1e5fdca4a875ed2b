"""What a bundle that makes videos says besides: the model's facts, the sampling defaults, the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from .budget import AT_ONCE, IN_CHUNKS, MemoryFacts
from .bundle import Bundle, listed, section
from .cache_facts import CacheFacts
from .directory import Root
from .errors import UserError
from .model import Model
from .options import VIDEO as TASK
from .progress import OnProgress, ignore
from .tables import Table, table_file
from .tiling import Tiling
from .video_facts import Sampling, Shape, VideoFacts


@dataclass(frozen=True)
class VideoBundle(Bundle):
    """A bundle whose task is text-to-video."""

    model: Model
    embedding: str
    sampling: Sampling
    shapes: tuple[Shape, ...]
    tilings: Mapping[str, Tiling]
    memory: MemoryFacts | None = None
    cache: CacheFacts | None = None

    @classmethod
    def open(cls, root: Root, *, on_progress: OnProgress = ignore) -> VideoBundle:
        """Verify a bundle and read what it says, as `Bundle.open` does. Raises BundleError for one of another task."""
        return cls.of(Bundle.open(root, on_progress=on_progress))

    @classmethod
    def of(cls, bundle: Bundle) -> VideoBundle:
        """What an open bundle says besides. Raises BundleError for one of another task."""
        bundle.expect_task(TASK)
        facts = VideoFacts.read(runtime := section(bundle.folder, bundle.manifest, "runtime"))
        return cls(
            folder=bundle.folder,
            manifest=bundle.manifest,
            task=bundle.task,
            graphs=bundle.graphs,
            engines=bundle.engines,
            threads=bundle.threads,
            model=facts.model,
            embedding=listed(bundle.manifest, runtime, "embedding"),
            sampling=facts.sampling,
            shapes=facts.shapes,
            tilings=facts.tilings,
            memory=MemoryFacts.read(
                runtime,
                [shape.name for shape in facts.shapes],
                [file for segments in bundle.engines.values() for file in segments.files],
            ),
            cache=facts.cache,
        )

    @property
    def phases(self) -> tuple[str, ...]:
        """In which its videos are made, each with memory of its own."""
        return AT_ONCE if self.cache is None else IN_CHUNKS

    def shape(self, name: str | None, frames: int | None) -> Shape:
        """The named shape (default: the first), with another number of frames if given. Raises UserError."""
        names = [shape.name for shape in self.shapes]
        if name is not None and name not in names:
            raise UserError(f"this bundle has no shape {name!r}", hint=f"it has: {', '.join(names)}")
        shape = self.shapes[names.index(name) if name is not None else 0]
        if frames is None:
            return shape
        stride = self.model.temporal_stride
        if frames < 1 or (frames - 1) % stride:
            below = max(frames - 1, 0) // stride * stride + 1
            raise UserError(
                f"{frames} frames cannot be made: the first latent frame gives one frame, each other one {stride}",
                hint=f"ask for {below} or {below + stride}",
            )
        # What a causal model computes of positions ends nowhere.
        if self.cache is None and frames > (most := self.model.most_frames):
            raise UserError(f"{frames} frames cannot be made: the model has positions for {most}")
        return Shape(shape.name, shape.height, shape.width, frames)

    def tiling(self, height: int, width: int) -> Tiling | None:
        """The tiles in which pictures of a size, in pixels, are decoded; None where they are decoded whole."""
        named = (
            self.tilings.get(shape.name) for shape in self.shapes if (shape.height, shape.width) == (height, width)
        )
        return next(named, None)

    def tables(self, component: str) -> dict[str, Table]:
        """The tables of a component's graphs, by the graph's name. Raises BundleError."""
        paths = {file.path for file in self.manifest.files}
        tables: dict[str, Table] = {}
        for graph, interface in self.interfaces(component).items():
            if (name := table_file(component, graph)) in paths:
                table = partial(Table, component=component, graph=graph, interface=interface)
                tables[graph] = self.folder.read(name, table)
        return tables

    def latent_shape(self, shape: Shape) -> tuple[int, ...]:
        """[1, channels, latent frames, latent height, latent width] of a video size."""
        return self.model.latent_shape(height=shape.height, width=shape.width, frames=shape.frames)
