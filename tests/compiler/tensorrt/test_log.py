"""The build log, from lines that version 1.7.1.116 has written for tiny-wan's step at two sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.compiler.engines.tensorrt.log import BuiltKernel, Tensor, parse_log

LAYERS = Path(__file__).with_name("layers.log").read_text()
MEMORY = (
    "Max Scratch Memory: 8433664 bytes",
    "Total Activation Memory: 8433664 bytes",
    "Max Scratch Memory: 8553984 bytes",
    "Total Activation Memory: 8553985 bytes",
    "Total Weights Memory: 1635076 bytes",
)


def test_kernels_with_what_they_are_made_of() -> None:
    product, attention, wait, copy = parse_log([*MEMORY, LAYERS]).kernels
    assert product.nodes == ("blocks.0.attn1.to_v", "blocks.0.attn1.to_q")
    assert (product.operands, product.result, product.profile) == (("Int8", "Int8"), "BFloat16", 0)
    assert product.multiplies and not product.is_attention
    assert product.inputs == (Tensor((1, 80, 160), "Int8"),)
    assert attention.is_attention and not attention.multiplies
    assert attention.inputs == (Tensor((5, -1, 32), "BFloat16"),)
    assert attention.profile == 1, "another kernel of its program says so"
    assert (wait.nodes, wait.result, wait.profile) == ((), "", 1)
    assert (copy.kind, copy.outputs) == ("ShapeHostToDevice", (Tensor((), "Float"),))


def test_memory_is_that_of_the_largest_profile() -> None:
    log = parse_log([*MEMORY, LAYERS])
    assert (log.activation_bytes, log.weight_bytes, log.scratch_bytes) == (8553985, 1635076, 8553984)


def test_a_product_of_two_activations_has_its_second_input_as_the_other_side() -> None:
    sides = (Tensor((1, 4, 8), "BFloat16"), Tensor((1, 8, 4), "Half"))
    kernel = BuiltKernel("scores", "gemm", sides, (Tensor((1,), "Float"),), (), (), 0)
    assert kernel.operands == ("BFloat16", "Half")


@pytest.mark.parametrize("messages", [[], ["Layers:\n\nI/O Tensors:\n"], ["Layers:\nName: another form\n"]])
def test_a_log_in_another_form_is_none(messages: list[str]) -> None:
    with pytest.raises(ValueError, match="log"):
        parse_log(messages)
