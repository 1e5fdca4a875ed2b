"""How many bytes quantising one component writes, told from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from wanc.calibration.schemes import SCHEMES
from wanc.calibration.weights import GROUP
from wanc.compiler.host.chain import MOST_WEIGHT_BYTES
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.disk_use import FLOAT_BYTES, executed_bytes, graph_bytes, with_others
from wanc.compiler.quantize.decisions import probe_rows
from wanc.compiler.quantize.keep_patterns import fits

BITS = {"int8": 8, "int4": 4, "fp8": 8}
PATCHES = "patch_embedding.weight"
"""[width, channels, frames, height, width]: what a token is made of."""


def quantize_bytes(
    files: ComponentFiles,
    scheme: str,
    keep: Sequence[str],
    samples: int,
    state_bytes: int = 0,
    *,
    measures_effects: bool,
    is_trained: bool,
) -> int:
    """What lies on disk at once, the result and what is kept included; `state_bytes` are all samples' between pieces.

    The last piece is decided on beside what the others have come to. To measure effects all pieces are written again,
    and the one that is looked at once more, with Linears quantised.
    """
    floats = executed_bytes(files)
    piece = min(floats, MOST_WEIGHT_BYTES)
    linears = _linears(files, keep)
    rows = probe_rows(samples)
    probes = sum(FLOAT_BYTES * rows * (out + into) for out, into in linears)
    codes, kept = _codes(linears, scheme, packed=True), _codes(linears, scheme, packed=False)
    states = state_bytes if floats > MOST_WEIGHT_BYTES else 0
    others = (1 - piece / floats) * (codes + probes)
    result = codes + probes + graph_bytes(files) + (kept if is_trained else 0)
    chains = floats + piece if measures_effects else 0
    return with_others(kept + probes + states + max(piece + others, result + chains))


def _linears(files: ComponentFiles, keep: Sequence[str]) -> list[tuple[int, int]]:
    """[out, in] of the Linears that no pattern fits."""
    shapes = {name.removesuffix(".weight"): weight.shape for name, weight in files.component.weights.items()}
    wide = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    return [
        (shape[0], shape[1]) for name, shape in wide.items() if not any(fits(one, files.name, name) for one in keep)
    ]


def _codes(linears: Sequence[tuple[int, int]], scheme: str, *, packed: bool) -> int:
    """Bytes of codes with their scales; what is not packed has a byte for each."""
    weights = SCHEMES[scheme].weights
    bits, group = BITS[weights] if packed else 8, GROUP.get(weights)
    return sum(out * into * bits // 8 + FLOAT_BYTES * out * ceil(into / (group or into)) for out, into in linears)


def denoiser_states(files: ComponentFiles, latents: Sequence[tuple[int, ...]], text_length: int) -> int:
    """Between two pieces of a denoiser: of every sample, of latents of these shapes, the tokens before and
    behind the one that is executed, and the text.
    """
    width, _, *patch = files.component.weights[PATCHES].shape
    tokens = [prod(shape[-3:]) // prod(patch) for shape in latents]
    return FLOAT_BYTES * width * sum(2 * count + text_length for count in tokens)
