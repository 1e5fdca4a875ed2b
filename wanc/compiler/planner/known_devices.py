"""The kinds of devices that the planner knows.

Peaks are the vendors' dense rates, with float32 sums where the tensor cores have two rates. Memory is what the driver
reports for the whole card; what a context takes of it is `memory.WORKSPACE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wanc.compiler.planner.costs import Format
from wanc.compiler.planner.devices import Device, Efficiency

MIB = 2**20
# What large copies between a card and pinned memory of the host reach, in bytes/s.
HOST_LINKS = {"pcie-gen4": 25e9, "pcie-gen5": 50e9}

# Fitted by `fit.fitted_efficiency` to the published 480p times of one card; a test fits them again.
A100_BF16 = Efficiency(0.5752, "fitted to 785.7 s, the published time of one A100 for 480p")
H100_BF16 = Efficiency(0.4370, "fitted to 326.9 s, the published time of one H100 for 480p")
AS_H100 = Efficiency(H100_BF16.value, "assumed from h100")
AS_A100 = Efficiency(A100_BF16.value, "assumed from a100-80g")
# A convolution in float32 is no tensor core's work and reaches more of a peak that is a tenth as high; with this share
# the published times of eight cards, of which one decodes, come out right.
FP32 = Efficiency(0.7, "assumed, for convolutions without tensor cores")
# Products in 8 bits leave the same work around them: rounding, scales, shorter loops.
EIGHT_BITS = 0.85


def _gpu(
    kind: str,
    capability: str,
    *,
    mebibytes: int,
    bandwidth: float,
    peaks: Mapping[Format, float],
    bf16: Efficiency,
    pcie: str,
    nvlink: float | None = None,
) -> Device:
    """A GPU, `peaks` in TFLOP/s. Its efficiency in bf16 is known; those of other formats are derived from it."""
    eight = Efficiency(EIGHT_BITS * bf16.value, f"assumed, {EIGHT_BITS} of bf16's")
    sixteen = Efficiency(bf16.value, "assumed, as bf16")
    known: dict[Format, Efficiency] = {"fp32": FP32, "bf16": bf16, "fp16": sixteen, "int8": eight, "fp8": eight}
    return Device(
        kind=kind,
        capability=capability,
        memory=mebibytes * MIB,
        peaks={name: peak * 1e12 for name, peak in peaks.items()},
        efficiencies={name: known[name] for name in peaks},
        bandwidth=bandwidth,
        host_link=HOST_LINKS[pcie],
        pcie=pcie,
        nvlink=nvlink,
    )


_ALL = (
    _gpu(
        "a100-80g",
        "sm80",
        mebibytes=81_920,
        bandwidth=2.039e12,
        peaks={"fp32": 19.5, "bf16": 312, "fp16": 312, "int8": 624},
        bf16=A100_BF16,
        pcie="pcie-gen4",
        nvlink=300e9,
    ),
    _gpu(
        "h100",
        "sm90",
        mebibytes=81_559,
        bandwidth=3.35e12,
        peaks={"fp32": 67, "bf16": 989.4, "fp16": 989.4, "int8": 1978.9, "fp8": 1978.9},
        bf16=H100_BF16,
        pcie="pcie-gen5",
        nvlink=450e9,
    ),
    _gpu(
        "h200",
        "sm90",
        mebibytes=143_771,
        bandwidth=4.8e12,
        peaks={"fp32": 67, "bf16": 989.4, "fp16": 989.4, "int8": 1978.9, "fp8": 1978.9},
        bf16=AS_H100,
        pcie="pcie-gen5",
        nvlink=450e9,
    ),
    _gpu(
        "b200",
        "sm100",
        mebibytes=183_359,
        bandwidth=8.0e12,
        peaks={"fp32": 75, "bf16": 2250, "fp16": 2250, "int8": 4500, "fp8": 4500},
        bf16=AS_H100,
        pcie="pcie-gen5",
        nvlink=900e9,
    ),
    _gpu(
        "l40s",
        "sm89",
        mebibytes=46_068,
        bandwidth=0.864e12,
        peaks={"fp32": 91.6, "bf16": 362, "fp16": 362, "int8": 733, "fp8": 733},
        bf16=AS_A100,
        pcie="pcie-gen4",
    ),
    _gpu(
        "rtx4090",
        "sm89",
        mebibytes=24_564,
        bandwidth=1.008e12,
        peaks={"fp32": 82.6, "bf16": 165.2, "fp16": 165.2, "int8": 660.6, "fp8": 330.3},
        bf16=AS_A100,
        pcie="pcie-gen4",
    ),
    _gpu(
        "rtx5090",
        "sm120",
        mebibytes=32_607,
        bandwidth=1.792e12,
        peaks={"fp32": 104.8, "bf16": 209.5, "fp16": 209.5, "int8": 838, "fp8": 419},
        bf16=AS_A100,
        pcie="pcie-gen5",
    ),
    # A socket of a server with 32 cores and matrix units, and what of its memory is left to one model.
    Device(
        kind="cpu",
        capability="x86-64",
        memory=128 * 2**30,
        peaks={"fp32": 3e12, "bf16": 24e12, "int8": 48e12},
        efficiencies=dict.fromkeys(("fp32", "bf16", "int8"), Efficiency(0.4, "assumed")),
        bandwidth=0.2e12,
        host_link=25e9,
    ),
)

DEVICES: Mapping[str, Device] = MappingProxyType({device.kind: device for device in _ALL})
"""By kind."""
