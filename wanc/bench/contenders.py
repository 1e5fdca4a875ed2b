"""Who is measured: the contests as tables of contenders by name, on the same model, inputs and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wanc.bench import ours, peers
from wanc.bench.case import Case
from wanc.compiler.engines.products import Products

REFERENCE = "PyTorch eager fp32"
NOTHING = Products(0, 0, 0)


@dataclass(frozen=True)
class Material:
    """What every contender is made of: the case, its module and inputs, and a private folder with files of both.

    `source` are the weights, `exported` is wanc's program of them, `plain` PyTorch's export.
    """

    case: Case
    folder: Path
    module: torch.nn.Module
    inputs: peers.Inputs
    source: Mapping[str, Path]
    exported: Mapping[str, Path]
    plain: Path

    @classmethod
    def prepare(cls, case: Case, folder: Path) -> Material:
        """Write the weights and both exports into a folder."""
        module, inputs = case.module(), case.inputs()
        source = case.save(module, folder)
        exported = ours.export(case, source, folder / "exported")
        return cls(case, folder, module, inputs, source, exported, peers.export(module, inputs, folder / "plain.onnx"))


@dataclass(frozen=True)
class Contender:
    """A step to measure, and what is asked when all are measured.

    `once_seconds` tells how long that took which is not computed again for every step, `products` what was multiplied
    in which numbers; contenders that know no integers need not look.
    """

    step: peers.Step
    once_seconds: Callable[[], float] = lambda: 0.0
    products: Callable[[], Products] = lambda: NOTHING


def contenders(only: str, material: Material) -> dict[str, Contender]:
    """The contest `only`: the reference, the peers and wanc."""
    reference = Contender(peers.eager(material.module, material.inputs))
    return {REFERENCE: reference, **PEERS[only](material), **OURS[only](material)}


def _float_peers(material: Material) -> dict[str, Contender]:
    module, inputs, plain, threads = material.module, material.inputs, material.plain, material.case.threads
    optimized = peers.transformer_optimizer(plain, material.case, material.folder / "optimized.onnx")
    return {
        "torch.compile fp32": Contender(peers.compiled(module, inputs)),
        "PyTorch autocast bf16": Contender(peers.autocast(module, inputs)),
        "ONNX Runtime, plain export": Contender(peers.onnx_runtime(plain, inputs, threads)),
        "ONNX Runtime, its transformer optimizer": Contender(peers.onnx_runtime(optimized, inputs, threads)),
        "OpenVINO fp32": Contender(peers.open_vino(plain, inputs, threads, "f32")),
        "OpenVINO bf16": Contender(peers.open_vino(plain, inputs, threads, "bf16")),
    }


def _int8_peers(material: Material) -> dict[str, Contender]:
    from wanc.bench import int8_peers

    inputs, samples = material.inputs, material.case.calibration_inputs()

    def in_onnx_runtime(folder: str, *, keep_ends: bool) -> Contender:
        path = int8_peers.dynamic(material.plain, material.folder / folder, keep_ends=keep_ends)
        step = peers.onnx_runtime(path, inputs, material.case.threads)
        return Contender(step, products=lambda: int8_peers.executed_by_onnx_runtime(path, inputs))

    def in_open_vino(path: Path, precision: str) -> Contender:
        step = peers.open_vino(path, inputs, material.case.threads, precision)
        return Contender(step, products=lambda: int8_peers.executed_by_open_vino(path, inputs, precision))

    whole = int8_peers.calibrated(material.plain, samples, material.folder / "nncf", keep_ends=False)
    middle = int8_peers.calibrated(material.plain, samples, material.folder / "nncf, ends", keep_ends=True)
    return {
        "ONNX Runtime, dynamic INT8": in_onnx_runtime("dynamic", keep_ends=False),
        "ONNX Runtime, dynamic INT8, ends in float": in_onnx_runtime("dynamic, ends", keep_ends=True),
        "OpenVINO + NNCF INT8": in_open_vino(whole, "f32"),
        "OpenVINO + NNCF INT8, bf16": in_open_vino(whole, "bf16"),
        "OpenVINO + NNCF INT8, ends in float": in_open_vino(middle, "f32"),
        "OpenVINO + NNCF INT8, ends in float, bf16": in_open_vino(middle, "bf16"),
    }


def _float_ours(material: Material) -> dict[str, Contender]:
    return {name: _our(name, material) for name in ours.COMPILERS}


def _int8_ours(material: Material) -> dict[str, Contender]:
    """What integers bring is told against wanc's own floats."""
    samples = [peers.arrays(sample) for sample in material.case.calibration_inputs()]
    built = ours.build_quantized(
        material.exported, material.source, samples, material.folder / "wanc int8", threads=material.case.threads
    )
    floats = {name: _our(name, material) for name in ("wanc onnxruntime", "wanc openvino")}
    return {**floats, **{name: _contender(denoiser, material) for name, denoiser in built.items()}}


def _our(name: str, material: Material) -> Contender:
    denoiser = ours.build(
        name, material.exported, material.source, material.folder / name, threads=material.case.threads
    )
    return _contender(denoiser, material)


def _contender(denoiser: ours.Ours, material: Material) -> Contender:
    feeds = peers.arrays(material.inputs)
    return Contender(lambda: denoiser.step(feeds), denoiser.request_seconds, lambda: denoiser.products(feeds))


PEERS: Mapping[str, Callable[[Material], dict[str, Contender]]] = {"float": _float_peers, "int8": _int8_peers}
OURS: Mapping[str, Callable[[Material], dict[str, Contender]]] = {"float": _float_ours, "int8": _int8_ours}
