"""Wan2.2-T2V-A14B's costs by hand, from its configuration: a stand-in for what `survey` counts from graphs."""

from __future__ import annotations

from dataclasses import dataclass

from wanc.compiler.planner.costs import ComponentCosts, Format, Kernel, PartCosts, VideoCosts

WIDTH, FEED_FORWARD, HEADS, LAYERS, TEXT = 5120, 13_824, 40, 40, 512
STEPS = (26, 14)
BYTES: dict[Format, int] = {"fp32": 4, "bf16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class Size:
    """A video's size: tokens of the denoiser, FLOPs and bytes of one latent frame's decoding in fp32."""

    name: str
    tokens: int
    decoder_flops: int
    decoder_activation: int


SIZES = {
    # Activations as TensorRT's builder reports them, docs/results.
    "480p": Size("480p", 32_760, 285 * 10**12 // 21, 7_607 * 2**20),
    "720p": Size("720p", 75_600, 660 * 10**12 // 21, 17_554 * 2**20),
}
BLOCK_ACTIVATION = {32_760: 3_209 * 2**20, 75_600: 7_393 * 2**20}


def linear(tokens: int, inputs: int, outputs: int, number_format: Format, count: int = 1) -> Kernel:
    moved = 2 * tokens * (inputs + outputs)
    weights = inputs * outputs * BYTES[number_format]
    return Kernel("linear", number_format, 2 * tokens * inputs * outputs, moved, weights, count)


def attention(tokens: int, keys: int) -> Kernel:
    return Kernel("attention", "bf16", 4 * tokens * keys * WIDTH, 2 * WIDTH * (2 * tokens + 2 * keys))


def elementwise(tokens: int, bytes_each: int, count: int) -> Kernel:
    return Kernel("other", "fp32", 0, tokens * WIDTH * bytes_each, 0, count)


def block(index: int, tokens: int, linears: Format) -> PartCosts:
    kernels = (
        linear(tokens, WIDTH, WIDTH, linears, 6),
        linear(tokens, WIDTH, FEED_FORWARD, linears),
        linear(tokens, FEED_FORWARD, WIDTH, linears),
        attention(tokens, tokens),
        attention(tokens, TEXT),
        # Norm and modulation read fp32 and write bf16; residual and gate read fp32 and bf16 and write fp32; queries
        # and keys are normalised and rotated.
        elementwise(tokens, 4 + 2, 3),
        elementwise(tokens, 4 + 2 + 4, 3),
        elementwise(tokens, 2 + 4 + 4 + 2, 3),
    )
    weights = sum(kernel.weights * kernel.count for kernel in kernels)
    return PartCosts(
        f"block {index}",
        kernels,
        weights=weights,
        activation=BLOCK_ACTIVATION.get(tokens, tokens * WIDTH * 20),
        leaves=tokens * WIDTH * 4,
        kept=2 * TEXT * WIDTH * 2,
        exchanged=4 * tokens * WIDTH * 2,
    )


def expert(name: str, tokens: int, steps: int, linears: Format = "bf16", branches: int = 2) -> ComponentCosts:
    latents = tokens * 64 * 4
    residual = tokens * WIDTH * 4
    begin = PartCosts("begin", (linear(tokens, 64, WIDTH, "bf16"),), 64 * WIDTH * 2, latents + residual, residual)
    end = PartCosts("end", (linear(tokens, WIDTH, 64, "bf16"),), 64 * WIDTH * 2, latents + residual, latents)
    blocks = tuple(block(index, tokens, linears) for index in range(LAYERS))
    return ComponentCosts(name, (begin, *blocks, end), steps, branches, HEADS, tokens)


def text_encoder() -> ComponentCosts:
    def layer(index: int) -> PartCosts:
        kernels = (linear(TEXT, 4096, 4096, "bf16", 4), linear(TEXT, 4096, 10_240, "bf16", 3))
        weights = sum(kernel.weights * kernel.count for kernel in kernels)
        return PartCosts(f"layer {index}", kernels, weights, 332 * 2**20, TEXT * 4096 * 4, is_split=False)

    return ComponentCosts("text_encoder", tuple(layer(index) for index in range(24)), 1, 2)


def decoder(size: Size) -> ComponentCosts:
    kernel = Kernel("convolution", "fp32", size.decoder_flops, 20 * 2**30, 508 * 2**20 // 2)
    part = PartCosts(
        "decoder", (kernel,), kernel.weights, size.decoder_activation, 3 * 4 * 4 * 480 * 832, is_split=False
    )
    return ComponentCosts("vae_decoder", (part,), 21)


def a14b(size: str = "480p", linears: Format = "bf16") -> VideoCosts:
    chosen = SIZES[size]
    names = ("denoiser_high", "denoiser_low")
    experts = tuple(expert(name, chosen.tokens, steps, linears) for name, steps in zip(names, STEPS, strict=True))
    return VideoCosts(size, text_encoder(), experts, decoder(chosen))
