"""What an engine cannot do of a recipe, told before any work; and what stays in fp32 unless a recipe says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

Write = Callable[[str, str | bytes], Path]
RTX = "engine.kind=tensorrt-rtx"
INT8 = ("quantize.calibrate.prompts=prompts.txt",)
FP8_ATTENTION = ("quantize.scheme=fp8", "quantize.attention=fp8")
ON_CUDA = ("engine.targets=[cuda]",)


def rtx(*targets: str, compute: str = "bf16") -> tuple[str, ...]:
    return RTX, f"engine.targets=[{', '.join(targets)}]", f"precision.compute={compute}"


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        ((RTX, "precision.compute=bf16"), "engine.targets: tensorrt-rtx builds for GPUs, and not for the cpu", "sm89"),
        (rtx("sm89", "cpu"), "engine.targets.1: tensorrt-rtx builds for GPUs, and not for the cpu", "sm120"),
        (
            ("engine.targets=[sm89]",),
            "engine.targets.0: onnxruntime does not build for sm89",
            "tensorrt-rtx",
        ),
        (("precision.compute=fp16",), "precision.compute: onnxruntime has no fp16 on CPUs", "fp32"),
        (rtx("sm89", compute="fp32"), "precision.compute: tensorrt-rtx has no fused attention in fp32", "bf16"),
        (rtx("sm89", "sm75"), "precision.compute: sm75 has no products in bf16", "fp16"),
        (
            (*rtx("sm75", compute="fp16"), "precision.islands=[norm, time]"),
            "precision.islands: sm75 has no products in fp32, as time would need them",
            "leave time out",
        ),
        ((*rtx("sm89", "sm86"), "quantize.scheme=fp8", *INT8), "quantize.scheme: sm86 has no fp8", "int8"),
        ((*rtx("sm80"), *FP8_ATTENTION, *INT8), "quantize.scheme: sm80 has no fp8", "int8"),
        (
            (*rtx("sm89", compute="fp32"), "engine.allow_unfused=[Attention]", *FP8_ATTENTION, *INT8),
            "quantize.attention: attention in fp8 is one kernel only where products are in 16 bits",
            "bf16",
        ),
        (
            ("engine.kind=openvino", *FP8_ATTENTION, "quantize.emulate=true", *INT8),
            "quantize.attention: openvino has no fp8 attention on CPUs",
            "tensorrt-rtx",
        ),
        (
            (*rtx("sm89"), "quantize.scheme=int8-dynamic", *INT8),
            "quantize.scheme: tensorrt-rtx has no kernels that round each input by its own range",
            "int8",
        ),
        (
            ("engine.weight_streaming=true",),
            "engine.weight_streaming: onnxruntime has its weights in memory",
            "tensorrt-rtx or tensorrt",
        ),
        (
            (*rtx("sm89", "sm120"), "partition.devices=[{kind: rtx5090}]"),
            "engine.targets.0: no device executes engines for sm89",
            "remove sm89",
        ),
        (
            (*rtx("sm89", "sm80"), "partition.devices=[{kind: rtx4090, count: 2}, {kind: l40s}]"),
            "engine.targets.1: no device executes engines for sm80",
            "add such a device",
        ),
        (rtx("sm89", "sm89"), "engine.targets.1: sm89 stands twice", "each once"),
        (
            ("engine.kind=tensorrt", "precision.compute=bf16", "engine.targets=[sm75]"),
            "engine.targets.0: tensorrt does not build for sm75",
            "tensorrt-rtx",
        ),
        (
            ("engine.kind=tensorrt", "precision.compute=bf16", "partition.devices=[{kind: cpu}, {kind: h100}]"),
            "engine.targets: tensorrt builds for GPUs, and not for the cpu",
            "sm90",
        ),
        (
            ("engine.targets=[cpu, cuda]",),
            "engine.targets: one bundle is for the cpu or for cuda, and not for both",
            "matrix",
        ),
        (
            ("engine.kind=openvino", "engine.targets=[cuda]"),
            "engine.targets.0: openvino builds for the cpu, and not for cuda",
            "set engine.kind to onnxruntime",
        ),
        (rtx("cuda"), "engine.targets.0: tensorrt-rtx does not build for cuda", "set engine.kind to onnxruntime"),
        *(
            (
                (*ON_CUDA, f"precision.compute={compute}"),
                f"precision.compute: onnxruntime computes in fp32 on cuda: wanc lowers nothing to {compute} for it",
                "tensorrt-rtx or tensorrt",
            )
            for compute in ("bf16", "fp16")
        ),
        *(
            (
                (*ON_CUDA, f"quantize.scheme={scheme}", *INT8),
                f"quantize.scheme: onnxruntime has no kernel on cuda that is a Linear of {scheme}",
                "quantize.scheme to none",
            )
            for scheme in ("int8", "int8-dynamic", "int8-weight", "int4-weight", "fp8")
        ),
        *(
            (
                (*ON_CUDA, f"quantize.text_encoder={scheme}", *INT8),
                f"quantize.text_encoder: onnxruntime has no kernel on cuda that is a Linear of {scheme}",
                "quantize.text_encoder to none",
            )
            for scheme in ("int8", "int8-weight")
        ),
        *(
            (
                (*rtx("sm89"), *(f"{key}={value}" for key, value in scheme.items()), *INT8),
                "quantize.text_encoder: tensorrt-rtx widens the codes of some Linears before it multiplies",
                "set quantize.text_encoder to int8",
            )
            for scheme in (
                {"quantize.text_encoder": "int8-weight"},
                {"quantize.scheme": "int8", "quantize.text_encoder": "int8-weight"},
            )
        ),
        *(
            (
                (*changes, "quantize.vae_decoder=int8", *INT8),
                f"quantize.vae_decoder: wanc has no int8 convolutions for {kind} yet",
                "set engine.kind to openvino, or quantize.vae_decoder to none",
            )
            for kind, changes in {
                "onnxruntime": ON_CUDA,
                "tensorrt-rtx": (*rtx("sm89"), "quantize.scheme=int8"),
            }.items()
        ),
        (
            (*ON_CUDA, "partition.devices=[{kind: h100, count: 2}]"),
            "partition.devices: onnxruntime executes a bundle on one GPU",
            "tensorrt-rtx or tensorrt",
        ),
        (
            (*ON_CUDA, "partition.devices=[{kind: cpu}]"),
            "partition.devices.0.kind: cpu executes engines for cpu, and none is built",
            "add cpu",
        ),
        (
            (*ON_CUDA, "engine.weight_streaming=true"),
            "engine.weight_streaming: onnxruntime has its weights in memory",
            "tensorrt",
        ),
        (
            (*rtx("sm89"), "quantize.scheme=int4-weight", *INT8),
            "quantize.scheme: tensorrt-rtx widens the codes of some Linears before it multiplies",
            "fp8",
        ),
    ],
)
def test_what_is_impossible(overrides: tuple[str, ...], message: str, hint: str, write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny), list(overrides))
    assert caught.value.message.startswith(message)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("devices", [(), ("partition.devices=[{kind: h100}]",), ("partition.devices=[{kind: l40s}]",)])
def test_on_cuda_any_gpu_will_do(devices: tuple[str, ...], write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), [*ON_CUDA, *devices])
    assert loaded.recipe.targets == ("cuda",)


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        ((), set[str]()),
        (rtx("sm80", "sm121"), {"vae"}),
        (rtx("sm75", "sm89", compute="fp16"), {"vae", "time"}),
        ((*rtx("sm89"), "precision.islands=[vae]"), {"residual", "modulation", "norm", "rope", "time"}),
    ],
)
def test_islands(overrides: tuple[str, ...], left_out: set[str], write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), list(overrides))
    every = {"residual", "modulation", "norm", "rope", "time", "vae"}
    assert set(loaded.recipe.islands) == every - left_out


def test_fp8_is_for_later_gpus(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), [*rtx("sm89", "sm120"), "quantize.scheme=fp8", *INT8])
    assert loaded.recipe.quantize.scheme == "fp8"


@pytest.mark.parametrize("kind", ["tensorrt-rtx", "tensorrt"])
def test_attention_in_fp8_is_for_both_engines_of_gpus(kind: str, write: Write, tiny: str) -> None:
    overrides = [*rtx("sm89", "sm120"), f"engine.kind={kind}", *FP8_ATTENTION, *INT8]
    (loaded,) = load(write("recipe.yaml", tiny), overrides)
    assert loaded.recipe.quantize.attention == "fp8"
