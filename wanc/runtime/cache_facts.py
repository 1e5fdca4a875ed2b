"""What a manifest says of the cache of a causal model: how its videos are divided, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .dimensions import split_dimension
from .errors import BundleError
from .interface import Interface
from .kvcache import FORMATS, KeyValueWindow
from .strict_json import Fields
from .video_limits import MOST_CHUNK_FRAMES, MOST_CHUNKS

KEY = "kv_cache"
CLEAN = 0.0
"""The timestep of a pass over what is finished."""
PAST, NEW = "past.", "new."
"""What the names begin with of what a pass takes of finished chunks, and of what it leaves."""
POSITIONS = ABSOLUTE, RELATIVE = "absolute", "relative"


@dataclass(frozen=True)
class CacheFacts:
    """`chunk` latent frames are made together; finished chunks are seen as `window` says, and kept as `precision`.

    Positions of frames are those in the video, or relative to what is in sight.
    """

    chunk: int
    window: KeyValueWindow
    precision: str
    is_relative: bool = False

    @classmethod
    def read(cls, runtime: Fields) -> CacheFacts | None:
        """None of a bundle whose model makes a video at once. Raises BundleError."""
        if KEY not in runtime.values:
            return None
        fields = runtime.object(KEY)
        if (precision := fields.text("precision")) not in FORMATS:
            fields.refuse("precision", f"is {ascii(precision)[:80]}, not one of {', '.join(FORMATS)}")
        sink, recent = (
            fields.integer(name, minimum=least, maximum=MOST_CHUNKS) for name, least in (("sink", 0), ("window", 1))
        )
        chunk = fields.integer("chunk", minimum=1, maximum=MOST_CHUNK_FRAMES)
        positions = (
            fields.text("positions") if "positions" in fields.values else ABSOLUTE
        )  # older bundles know no others
        if positions not in POSITIONS:
            fields.refuse("positions", f"is {ascii(positions)[:80]}, not one of {', '.join(POSITIONS)}")
        return cls(chunk, KeyValueWindow(sink, recent), precision, positions == RELATIVE)

    def lengths(self, frames: int) -> list[int]:
        """The latent frames of each chunk of a video with so many: the last one may have fewer."""
        whole, rest = divmod(frames, self.chunk)
        return [self.chunk] * whole + [rest] * (rest > 0)


def left_by_a_chunk(
    step: Interface, chunk: int, size: Sequence[int], where: str | None = None
) -> dict[str, tuple[int, int, int, int]]:
    """What a whole chunk leaves of each block, [1, tokens, heads, channels], by the name of the input that takes it.

    `size` are the rows and columns of latents. Raises BundleError for a graph that is none of a causal expert.
    """
    left = {entry.name: entry.shape for entry in step.outputs if entry.name.startswith(NEW)}
    shapes = [entry.shape for entry in step.inputs if entry.name == "latents" and len(entry.shape) == 5]
    known = {name: [one for one in sizes[2:] if isinstance(one, int)] for name, sizes in left.items()}
    if len(shapes) != 1 or not left or any(len(sizes) != 2 for sizes in known.values()):
        raise BundleError("a graph of a causal expert does not say which keys and values it leaves", where=where)
    rows, columns = (side // split_dimension(asked)[0] for side, asked in zip(size, shapes[0][3:], strict=True))
    return {
        PAST + name.removeprefix(NEW): (1, chunk * rows * columns, heads, channels)
        for name, (heads, channels) in known.items()
    }
