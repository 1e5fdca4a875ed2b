"""What a model costs to execute, as the planner sees it: rows of parts, each a list of kernels and some sizes.

All numbers are of one execution at batch 1, of one guidance branch, at one size of video, in the number formats in
which the engine will hold weights and multiply. They are counted from graphs (`survey`); nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Format = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""In which numbers a kernel multiplies."""
Kind = Literal["linear", "attention", "convolution", "other"]


@dataclass(frozen=True)
class Kernel:
    """One kernel: FLOPs of its products (a multiplication and an addition are two), and the bytes that it moves.

    `moved` are the activations that it reads and writes, `weights` the bytes of parameters that it reads. What is no
    product, such as a norm, has no FLOPs. `count` equal ones are one entry.
    """

    kind: Kind
    format: Format
    flops: int
    moved: int
    weights: int = 0
    count: int = 1


@dataclass(frozen=True)
class PartCosts:
    """A block of a component, or what stands before the first or behind the last one: where a cut can be made.

    All sizes are bytes: `weights` as the engine holds them, `activation` the most that is alive at once inside,
    what enters and leaves included, `leaves` what crosses the cut behind it. `kept` is what is computed once for each
    request and branch and held until its end: cross-attention's keys and values. `exchanged` is what one execution
    sends between ranks in all, if its tokens are split among `n`: each rank sends `exchanged · (n - 1) / n²` bytes;
    0 where there is nothing to exchange. `is_split` says whether splitting tokens splits the work.
    """

    name: str
    kernels: tuple[Kernel, ...]
    weights: int
    activation: int
    leaves: int
    kept: int = 0
    exchanged: int = 0
    is_split: bool = True


@dataclass(frozen=True)
class ComponentCosts:
    """A component as a row of parts, in the order of execution.

    `heads` and `tokens` are of its self-attention; None where tokens cannot be split, as of a decoder. `executions` is
    how often the row is executed for one video and one branch: a denoiser's steps, a decoder's latent frames;
    `branches` how many executions of it are independent of each other. `timed` are the bytes, in float32, of the
    weights that only a timestep meets: its engine is executed when a bundle is built, and is in no part. `left` is what
    one execution of a causal expert leaves beside its velocity: keys and values of a chunk, of all blocks.
    """

    name: str
    parts: tuple[PartCosts, ...]
    executions: int
    branches: int = 1
    heads: int | None = None
    tokens: int | None = None
    timed: int = 0
    left: int = 0

    @property
    def looks_back(self) -> bool:
        """Whether it is causal: what it keeps of a video stays until that ends, whoever is at work meanwhile."""
        return self.left > 0

    @property
    def weights(self) -> int:
        """Bytes of all of its weights."""
        return sum(part.weights for part in self.parts)

    def kernels(self) -> Iterator[Kernel]:
        """Those of one execution."""
        for part in self.parts:
            yield from part.kernels


@dataclass(frozen=True)
class VideoCosts:
    """Everything that one video takes at one size: text encoder, one or two experts, decoder, in this order.

    `experts` are one or two components whose parts correspond: they have one configuration. The high-noise one comes
    first; a video's steps are all of the first and then all of the second.
    """

    shape: str
    text_encoder: ComponentCosts
    experts: tuple[ComponentCosts, ...]
    decoder: ComponentCosts

    @property
    def components(self) -> tuple[ComponentCosts, ...]:
        """All of them, in the order of execution."""
        return (self.text_encoder, *self.experts, self.decoder)
