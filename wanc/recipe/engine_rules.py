"""What an engine cannot do of what a recipe asks for: told before there is any work, each with a way around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wanc.recipe.checks import fault
from wanc.words import BUILT_FOR, CAPABILITIES, CPU, CUDA, ISLANDS, EngineKind, Island, Target

if TYPE_CHECKING:
    from wanc.recipe.schema import Recipe

RTX = "tensorrt-rtx"
GPU_ENGINES: tuple[EngineKind, ...] = (RTX, "tensorrt")
WITHOUT_FP8 = ("sm75", "sm80", "sm86")
OLDEST = "sm75"
COMPUTE, SCHEME, TARGETS = ("precision", "compute"), ("quantize", "scheme"), ("engine", "targets")
ATTENTION, TEXT_ENCODER = ("quantize", "attention"), ("quantize", "text_encoder")
BUDGET = ("runtime", "budgets", "device")


def default_targets(recipe: Recipe) -> tuple[Target, ...]:
    """What engines are compiled for unless a recipe says it: what its devices are."""
    if "devices" not in recipe.partition.model_fields_set:
        return CPU
    return tuple(dict.fromkeys(capability(recipe, device.kind) for device in recipe.partition.devices))


def capability(recipe: Recipe, kind: str) -> Target:
    """What a kind of device executes, of those that the recipe adds as well."""
    added = (recipe.partition.kinds or {}).get(kind)
    if added is not None and added.capability is not None:
        return added.capability
    known = kind if added is None or added.like is None else added.like
    return next(target for name, target in CAPABILITIES.items() if name == known)


def default_islands(recipe: Recipe) -> tuple[Island, ...]:
    """What stays in fp32 unless a recipe says it: all of them on CPUs.

    On GPUs the decoder of the VAE does not: its activations would take four times the memory, 17.5 GiB at 720p. And
    the oldest GPUs have no kernels for products in fp32, such as those of the time part.
    """
    if recipe.engine.kind not in GPU_ENGINES:
        return ISLANDS
    left_out = ("vae", "time") if OLDEST in recipe.targets else ("vae",)
    return tuple(island for island in ISLANDS if island not in left_out)


def check_targets(recipe: Recipe) -> None:
    """Raises a fault where an engine is not for a target, or a device has no engine that is for it."""
    kind, targets, can = recipe.engine.kind, recipe.targets, BUILT_FOR[recipe.engine.kind]
    for index, target in enumerate(targets):
        if target in can:
            continue
        at = ("engine", "targets", index) if recipe.engine.targets is not None else TARGETS
        if target in CPU:
            hint = f"name the GPUs of the deployment, such as `targets: [sm89]`; it can be {', '.join(can)}"
            raise fault(f"{kind} builds for GPUs, and not for the cpu", hint, at)
        others = " or ".join(name for name in BUILT_FOR if target in BUILT_FOR[name])
        if can == CPU:
            raise fault(f"{kind} builds for the cpu, and not for {target}", f"set engine.kind to {others}", at)
        hint = f"set engine.kind to {others}, or build for {', '.join(can)}"
        raise fault(f"{kind} does not build for {target}", hint, at)
    if CUDA in targets:
        _check_cuda(recipe, targets)
    if "devices" in recipe.partition.model_fields_set:
        _check_devices(recipe, targets)


def _check_cuda(recipe: Recipe, targets: tuple[Target, ...]) -> None:
    """All of a bundle is on the GPU, and on one."""
    if len(targets) > 1:
        hint = "build a bundle for each: a recipe's `matrix` has variants, such as `- {engine: {targets: [cuda]}}`"
        raise fault("one bundle is for the cpu or for cuda, and not for both", hint, TARGETS)
    if sum(device.count for device in recipe.partition.devices) > 1:
        hint = f"name one device, or set engine.kind to {' or '.join(GPU_ENGINES)}"
        raise fault("onnxruntime executes a bundle on one GPU", hint, ("partition", "devices"))


def _check_devices(recipe: Recipe, targets: tuple[Target, ...]) -> None:
    """Each device has an engine, and each engine a device."""
    devices = [capability(recipe, device.kind) for device in recipe.partition.devices]
    if CUDA in targets:  # which any of them executes that is no processor
        devices = [target if target in CPU else CUDA for target in devices]
    for index, needed in enumerate(devices):
        if needed not in targets:
            kind, at = recipe.partition.devices[index].kind, ("partition", "devices", index, "kind")
            hint = f"add {needed} to engine.targets, or leave engine.targets out"
            raise fault(f"{kind} executes engines for {needed}, and none is built", hint, at)
    for index, target in enumerate(targets):
        if target not in devices:
            hint = f"remove {target}, leave engine.targets out, or add such a device to partition.devices"
            raise fault(f"no device executes engines for {target}", hint, (*TARGETS, index))


def check_precision(recipe: Recipe) -> None:
    """Raises a fault where an engine does not compute in a format."""
    kind, compute, targets = recipe.engine.kind, recipe.precision.compute, recipe.targets
    if CUDA in targets and compute != "fp32":
        hint = f"leave precision.compute at fp32, or set engine.kind to {' or '.join(GPU_ENGINES)}"
        raise fault(f"{kind} computes in fp32 on cuda: wanc lowers nothing to {compute} for it", hint, COMPUTE)
    if kind == "onnxruntime" and compute == "bf16":
        hint = "set engine.kind to openvino, or leave precision.compute at fp32"
        raise fault("onnxruntime has no bf16 on CPUs", hint, COMPUTE)
    if kind not in GPU_ENGINES:
        if compute == "fp16":
            hint = f"leave precision.compute at fp32, or set engine.kind to {RTX}"
            raise fault(f"{kind} has no fp16 on CPUs", hint, COMPUTE)
        return
    if OLDEST in targets and compute != "fp16":
        hint = f"set precision.compute to fp16, or leave {OLDEST} out"
        raise fault(f"{OLDEST} has no products in {compute}", hint, COMPUTE)
    if OLDEST in targets and (whole := [island for island in recipe.islands if island in ("time", "vae")]):
        hint = f"leave {whole[0]} out, or {OLDEST}: without precision.islands it is left out"
        raise fault(f"{OLDEST} has no products in fp32, as {whole[0]} would need them", hint, ("precision", "islands"))
    if compute == "fp32" and "Attention" not in recipe.engine.allow_unfused:
        hint = "set precision.compute to bf16, or allow it: engine.allow_unfused: [Attention]"
        raise fault(f"{kind} has no fused attention in fp32", hint, COMPUTE)


def check_streaming(recipe: Recipe) -> None:
    """Raises a fault where weights are to be streamed and there is no other memory to stream them to."""
    if recipe.engine.weight_streaming and recipe.engine.kind not in GPU_ENGINES:
        hint = f"remove it, or set engine.kind to {' or '.join(GPU_ENGINES)}"
        raise fault(f"{recipe.engine.kind} has its weights in memory", hint, ("engine", "weight_streaming"))


def check_budgets(recipe: Recipe) -> None:
    """Raises a fault where a budget is given that no run would keep."""
    if recipe.runtime.device_budget is None:
        return
    if recipe.targets != CPU:
        hint = "remove it: `wanc plan` places a model in what its devices have"
        raise fault("a budget is kept by runs on a CPU, and not on GPUs so far", hint, BUDGET)
    if recipe.model.source is None:
        raise fault("only what makes videos is planned within a budget so far", "remove it", BUDGET)


def check_processors(recipe: Recipe) -> None:
    """Raises a fault where a model lies on several processors, and is to be spread in a way that none of them runs."""
    if recipe.targets != CPU or sum(device.count for device in recipe.partition.devices) < 2:
        return
    partition, devices = recipe.partition, ("partition", "devices")
    if recipe.model.source is None:
        raise fault("only what makes videos is placed on several devices so far", "name one device", devices)
    if recipe.runtime.device_budget is not None:
        raise fault("a budget is kept on one device so far", "remove it, or name one device", BUDGET)
    if partition.cut != "none":
        raise fault("the plan says where a model is cut for several devices", "remove it", ("partition", "cut"))
    if partition.replicas not in ("auto", 1):
        hint = "set it to 1, and run the bundle once for each copy"
        raise fault("processors execute one copy of a model", hint, ("partition", "replicas"))
    if partition.branches == "parallel":
        hint = "set it to serial: both branches go through the same devices, one behind the other"
        raise fault("processors have one chain of devices", hint, ("partition", "branches"))


def check_tiles(recipe: Recipe) -> None:
    """Raises a fault where pictures are to be decoded in tiles, and engines are compiled for whole ones."""
    if recipe.engine.kind in GPU_ENGINES and not isinstance(recipe.runtime.decode.tile, str):
        hint = "set it to off, or set engine.kind to onnxruntime or openvino"
        message = f"{recipe.engine.kind} is built for the sizes of whole pictures alone so far"
        raise fault(message, hint, ("runtime", "decode", "tile"))


def check_scheme(recipe: Recipe) -> None:
    """Raises a fault where an engine has no kernels for what Linears, or convolutions, are quantised to."""
    scheme, kind = recipe.quantize.scheme, recipe.engine.kind
    if recipe.quantize.vae_decoder != "none" and kind != "openvino":
        hint = "set engine.kind to openvino, or quantize.vae_decoder to none"
        message = f"wanc has no {recipe.quantize.vae_decoder} convolutions for {kind} yet"
        raise fault(message, hint, ("quantize", "vae_decoder"))
    if kind in GPU_ENGINES:
        _check_gpu_scheme(recipe)
        return
    if CUDA in recipe.targets:
        _check_cuda_scheme(recipe)
        return
    if scheme == "int8-dynamic" and kind == "openvino":
        hint = "set engine.kind to onnxruntime, or quantize.scheme to int8"
        raise fault("openvino has no kernels that round each input by its own range", hint, SCHEME)
    if recipe.quantize.attention == "fp8":
        hint = "leave quantize.attention at float, or build for GPUs: engine.kind: tensorrt-rtx"
        raise fault(f"{kind} has no fp8 attention on CPUs, and none is emulated", hint, ATTENTION)
    if scheme == "fp8" and not recipe.quantize.emulate:
        hint = "set quantize.scheme to int8, or quantize.emulate to true for its accuracy without its speed"
        raise fault(f"{kind} has no fp8 on CPUs", hint, SCHEME)


def _check_cuda_scheme(recipe: Recipe) -> None:
    """Its kernels for codes widen weights before they multiply, or give integers that others have to scale."""
    hint = f"set engine.kind to {' or '.join(GPU_ENGINES)}, or quantize.scheme to none"
    if recipe.quantize.scheme != "none":
        raise fault(f"onnxruntime has no kernel on cuda that is a Linear of {recipe.quantize.scheme}", hint, SCHEME)
    if recipe.quantize.attention != "float":
        hint = "leave quantize.attention at float, or build for one kind of GPU: engine.kind: tensorrt-rtx"
        raise fault(f"onnxruntime has no {recipe.quantize.attention} attention on cuda", hint, ATTENTION)
    if (asked := recipe.quantize.text_encoder) != "none":
        hint = f"set engine.kind to {' or '.join(GPU_ENGINES)}, or quantize.text_encoder to none"
        raise fault(f"onnxruntime has no kernel on cuda that is a Linear of {asked}", hint, TEXT_ENCODER)


def _check_gpu_scheme(recipe: Recipe) -> None:
    kind, scheme, hint = (
        recipe.engine.kind,
        recipe.quantize.scheme,
        "set quantize.scheme to int8, or to fp8 for sm89 and later",
    )
    if scheme == "int8-dynamic":
        raise fault(f"{kind} has no kernels that round each input by its own range", hint, SCHEME)
    widens = f"{kind} widens the codes of some Linears before it multiplies, where weights alone are codes"
    if scheme in ("int8-weight", "int4-weight"):
        raise fault(widens, hint, SCHEME)
    if recipe.quantize.text_encoder == "int8-weight":
        raise fault(widens, "set quantize.text_encoder to int8", TEXT_ENCODER)
    if scheme == "fp8" and (older := [target for target in recipe.targets if target in WITHOUT_FP8]):
        raise fault(f"{older[0]} has no fp8", f"leave {older[0]} out, or set quantize.scheme to int8", SCHEME)
    if recipe.quantize.attention == "fp8" and recipe.precision.compute == "fp32":
        message = "attention in fp8 is one kernel only where products are in 16 bits"
        raise fault(message, "set precision.compute to bf16, or leave quantize.attention at float", ATTENTION)
    if scheme != "none" and recipe.quantize.emulate:
        message = f"{kind} has kernels for {scheme}: there is nothing to emulate"
        raise fault(message, "remove it", ("quantize", "emulate"))


RULES: tuple[Callable[[Recipe], None], ...] = (
    check_targets, check_precision, check_streaming, check_tiles, check_scheme, check_budgets, check_processors,
)  # fmt: skip
