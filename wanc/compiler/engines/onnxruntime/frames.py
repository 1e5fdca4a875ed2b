"""Lowering of videos for ONNX Runtime: frames lie in the batch, as pictures do.

Its kernels for pictures are better than those for videos. So a convolution over time becomes a sum of convolutions of
frames, and what stands between two of them is rewritten to work on frames as well: the conversion back to a video
sinks through it, until it meets the next conversion to frames and both go.

A video is [1, channels, frames, height, width] here, and its frames are [frames, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, integers, rank, size
from wanc.compiler.passes.rewrite import Pass, Reads, Rewrite, accept, refuse, rewriting, skip

FRAMES = 2  # the axis of a video
AXES_AS_INPUT = 13  # the opset from which Squeeze and Unsqueeze take them so
SWAPPED = [2, 1, 0, 3, 4]
FRAMES_BEFORE_CHANNELS = [0, 2, 1, 3, 4]


def frames_of(op: Any, video: Any, axis: Any) -> Any:
    """In a pattern and in what replaces it: `axis` is a list there, and has to be a node here."""
    return op.Squeeze(op.Transpose(video, perm=SWAPPED), axis)


def video_of(op: Any, frames: Any, axis: Any, **options: Any) -> Any:
    return op.Transpose(op.Unsqueeze(frames, axis), perm=SWAPPED, **options)


def _axis(op: Any) -> Any:
    return op.Constant(value_ints=[FRAMES])


class Convolution(Rewrite):
    """Conv of a video → for each tap of its kernel in time a Conv of frames, summed."""

    reads: ClassVar[Reads] = {"Conv": ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")}

    def pattern(self, op, x, weight):  # pyright: ignore
        return op.Conv(x, weight, _allow_other_inputs=True, _outputs=["result"])

    def check(self, context, x, weight, result) -> MatchResult:  # pyright: ignore
        node, taps, frames = result.producer(), size(weight, FRAMES), size(x, FRAMES)
        if rank(weight) not in (None, 5):
            return skip()  # of pictures
        if rank(x) != 5 or size(x, 0) != 1 or not taps or not frames:
            return refuse("it is not known to be one video of so many frames")
        pads = attribute(node, "pads", [0] * 6)
        if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or pads[0] or pads[3]:
            return refuse("it pads in time")
        if [attribute(node, name, [1, 1, 1])[0] for name in ("strides", "dilations")] != [1, 1]:
            return refuse("it strides or dilates in time")
        self._taps, self._frames = taps, frames - taps + 1
        return accept()

    def rewrite(self, op, x, weight, result):  # pyright: ignore
        node = result.producer()
        pads = attribute(node, "pads", [0] * 6)
        flat = {name: attribute(node, name, [1, 1, 1])[1:] for name in ("strides", "dilations")}
        flat |= {"pads": [*pads[1:3], *pads[4:6]], "group": attribute(node, "group", 1)}
        frames, total = frames_of(op, x, _axis(op)), None
        for tap in range(self._taps):
            kernel = op.Gather(weight, op.Constant(value_int=tap), axis=2)
            bounds = [op.Constant(value_ints=[bound]) for bound in (tap, tap + self._frames, 0)]
            window = op.Slice(frames, *bounds) if self._taps > 1 else frames
            part = op.Conv(window, kernel, *(node.inputs[2:3] if tap == 0 else []), **flat)
            total = part if total is None else op.Add(part, total)
        return video_of(op, total, _axis(op))


class _Sinking(Rewrite):
    """A rule that moves the conversion to a video behind the node that follows it; others may use the video as well."""

    keeps_shared_nodes = True


class Meeting(_Sinking):
    """The frames of a video of frames → those frames."""

    def pattern(self, op, frames):  # pyright: ignore
        return frames_of(op, video_of(op, frames, [FRAMES]), [FRAMES])

    def rewrite(self, op, frames):  # pyright: ignore
        return op.Identity(frames)


class Activation(_Sinking):
    """SiLU, as this engine has it."""

    def pattern(self, op, frames):  # pyright: ignore
        return op.QuickGelu(video_of(op, frames, [FRAMES]), alpha=1.0, _domain="com.microsoft")

    def rewrite(self, op, frames):  # pyright: ignore
        return video_of(op, op.QuickGelu(frames, alpha=1.0, _domain="com.microsoft"), _axis(op))


class Sum(_Sinking):
    """A residual connection."""

    def pattern(self, op, one, other):  # pyright: ignore
        return op.Add(video_of(op, one, [FRAMES]), video_of(op, other, [FRAMES]))

    def rewrite(self, op, one, other):  # pyright: ignore
        return video_of(op, op.Add(one, other), _axis(op))


class Norm(_Sinking):
    """A norm over channels."""

    reads: ClassVar[Reads] = {"RMSNormalization": ("axis", "epsilon", "stash_type")}

    def pattern(self, op, frames, scale):  # pyright: ignore
        channels_last = op.Transpose(video_of(op, frames, [FRAMES]), perm=[0, 2, 3, 4, 1])
        norm = op.RMSNormalization(channels_last, scale, _outputs=["norm"])
        return op.Transpose(norm, perm=[0, 4, 1, 2, 3])

    def check(self, context, frames, scale, norm) -> MatchResult:  # pyright: ignore
        over_channels = attribute(norm.producer(), "axis", -1) in (-1, 4)
        return accept() if over_channels else refuse("the norm is not over channels alone")

    def rewrite(self, op, frames, scale, norm):  # pyright: ignore
        options = {name: attribute(norm.producer(), name) for name in ("epsilon", "stash_type")}
        channels_last = op.Transpose(frames, perm=[0, 2, 3, 1])
        norm = op.RMSNormalization(channels_last, scale, axis=-1, **options)
        return video_of(op, op.Transpose(norm, perm=[0, 3, 1, 2]), _axis(op))


class Cache(_Sinking):
    """A cache of earlier frames in front."""

    def pattern(self, op, cache, frames):  # pyright: ignore
        return op.Concat(cache, video_of(op, frames, [FRAMES]), axis=FRAMES, _outputs=["joined"])

    def rewrite(self, op, cache, frames, **_):  # pyright: ignore
        return video_of(op, op.Concat(frames_of(op, cache, _axis(op)), frames, axis=0), _axis(op))

    def check(self, context, joined, **_) -> MatchResult:  # pyright: ignore
        return refuse("the graph gives the joined video") if joined.is_graph_output() else accept()


class Window(_Sinking):
    """Some of the frames."""

    def pattern(self, op, frames, start, end, axes):  # pyright: ignore
        return op.Slice(video_of(op, frames, [FRAMES]), start, end, axes, _allow_other_inputs=True, _outputs=["window"])

    def check(self, context, frames, start, end, axes, window) -> MatchResult:  # pyright: ignore
        return accept() if integers(axes) == [FRAMES] else refuse("it cuts along other axes than that of frames")

    def rewrite(self, op, frames, start, end, axes, window):  # pyright: ignore
        axis = op.Constant(value_ints=[0])
        return video_of(op, op.Slice(frames, start, end, axis, *window.producer().inputs[4:]), _axis(op))


class Flattened(_Sinking):
    """A video whose frames a model puts into the batch by itself → those frames."""

    def pattern(self, op, frames, shape):  # pyright: ignore
        video = video_of(op, frames, [FRAMES], _outputs=["video"])
        return op.Reshape(op.Transpose(video, perm=FRAMES_BEFORE_CHANNELS), shape, _outputs=["flat"])

    def check(self, context, video, flat, **_) -> MatchResult:  # pyright: ignore
        return accept() if _is_of(flat, video) else refuse("the result is not known to be the video's frames")

    def rewrite(self, op, frames, **_):  # pyright: ignore
        return op.Identity(frames)


class Unflattened(_Sinking):
    """Frames that a model makes a video of by itself."""

    def pattern(self, op, frames, shape):  # pyright: ignore
        return op.Transpose(op.Reshape(frames, shape), perm=FRAMES_BEFORE_CHANNELS, _outputs=["video"])

    def check(self, context, frames, shape, video) -> MatchResult:  # pyright: ignore
        return accept() if _is_of(frames, video) else refuse("the result is not known to be a video of these frames")

    def rewrite(self, op, frames, **_):  # pyright: ignore
        return video_of(op, frames, _axis(op))


def _is_of(frames: ir.Value, video: ir.Value) -> bool:
    """Whether the sizes of frames are known to be those of a video of them."""
    if frames.shape is None or video.shape is None or len(frames.shape) != 4 or size(video, 0) != 1:
        return False
    _, channels, count, height, width = video.shape
    expected = (count, channels, height, width)
    return all(one == two and one != ir.SymbolicDim(None) for one, two in zip(frames.shape, expected, strict=True))


RULES: tuple[Callable[[], Rewrite], ...] = (
    Convolution,
    Meeting,
    Activation,
    Sum,
    Norm,
    Cache,
    Window,
    Flattened,
    Unflattened,
)
FRAMES_FIRST = Pass(
    "frames",
    "convolutions of videos → of frames, which lie in the batch",
    rewriting(*RULES),
    after=("kernels",),
    opset=AXES_AS_INPUT,
)
