"""Settings by which libraries calculate otherwise, and what calibration's mathematics give under the one that is set.

Executed as a script it prints a digest for each part.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Parts = Iterator[tuple[str, NDArray[np.generic]]]
PLAIN = "plain product"
"""What none of wanc's functions made: it shows that a setting takes effect."""


def settings() -> dict[str, dict[str, str]]:
    """Variables by what they do. The kinds of x86 processors are those that any other can stand in for."""
    dispatched = " ".join(np._core._multiarray_umath.__cpu_dispatch__)  # pyright: ignore
    kinds = ("Prescott", "Nehalem", "Haswell") if platform.machine() == "x86_64" else ()
    return {
        "none": {},
        **{kind: {"OPENBLAS_CORETYPE": kind} for kind in kinds},
        "one thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        "three threads": {"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"},
        "oldest instructions": {"NPY_DISABLE_CPU_FEATURES": dispatched, "ONEDNN_MAX_CPU_ISA": "SSE41"},
    }


def noise(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def parts() -> Parts:
    from wanc.calibration.gptq import Moments
    from wanc.calibration.histogram import Histogram
    from wanc.calibration.schemes import SCHEMES, rounded_inputs
    from wanc.calibration.smoothing import ChannelStatistics, best_alpha, channel_scales
    from wanc.calibration.thresholds import threshold
    from wanc.calibration.weights import sqnr_db
    from wanc.words import OBSERVERS

    weight, inputs = noise(48, 320, seed=0), noise(700, 320, seed=1) * np.abs(noise(320, seed=2))
    yield PLAIN, inputs @ weight.T
    statistics, histogram, moments = ChannelStatistics.of_width(320), Histogram(), Moments(320)
    for batch in np.split(inputs, 7):
        statistics.add(batch)
        histogram.add(batch)
        moments.add(batch)
    yield "moments", moments.total
    yield "best alpha", np.array(best_alpha(statistics, [weight]))
    for alpha in (0.0, 0.35, 1.0):
        yield f"smoothing at {alpha}", channel_scales(statistics, [weight], alpha)
    for observer in OBSERVERS:
        yield f"threshold by {observer}", np.array([threshold(histogram, observer, levels=n) for n in (7, 127)])
    for name, scheme in SCHEMES.items():
        codes = scheme.codes(weight, moments.total if scheme.needs_moments else None)
        yield f"{name}: codes", codes.values
        yield f"{name}: scales", codes.scales
        rounded = rounded_inputs(inputs, scheme.inputs, 0.05)
        yield f"{name}: inputs", rounded
        yield f"{name}: dB", np.array(sqnr_db(rounded, inputs))


def digests(found: Parts) -> Mapping[str, str]:
    return {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in found}


if __name__ == "__main__":
    for name, digest in digests(parts()).items():
        print(digest, name)
