"""Linears that round: they compute what their codes will, gradients pass through and end where a value is cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="training needs torch, an extra")

from wanc.calibration.decision import Decision  # noqa: E402
from wanc.calibration.fake_quantize import FakeQuantizedLinear, decisions_of, quantize_module  # noqa: E402
from wanc.calibration.weights import Codes, round_to_nearest  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
IN, OUT, ROWS = 20, 6, 50
SMOOTHING = np.linspace(0.5, 2.0, IN)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(bias: bool = True) -> torch.nn.Linear:
    made = torch.nn.Linear(IN, OUT, bias=bias)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(noise(OUT, IN, seed=1)))
    return made


def decided(
    made: torch.nn.Linear,
    *,
    levels: int = 127,
    group: int | None = None,
    smoothing: NDArray | None = None,
    activation_scale: float | None = None,
) -> Decision:
    weight = made.weight.detach().numpy()
    smoothed = weight if smoothing is None else (weight * smoothing).astype(np.float32)
    return Decision(round_to_nearest(smoothed, levels=levels, group=group), smoothing, activation_scale)


def expected(inputs: NDArray, decision: Decision, bias: NDArray) -> NDArray:
    """The same in numpy, from nothing but the decision."""
    if decision.smoothing is not None:
        inputs = inputs * (1 / decision.smoothing).astype(np.float32)
    if (step := decision.activation_scale) is not None:
        inputs = (np.clip(np.rint(inputs / step), -127, 127) * step).astype(np.float32)
    return inputs @ decision.codes.weights().T + bias


SCHEMES = {
    "int8": {"levels": 127, "smoothing": SMOOTHING, "activation_scale": 0.02},
    "int8 without smoothing": {"levels": 127, "activation_scale": 0.01},
    "int4-weight, a short last group": {"levels": 7, "group": 8},
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_computes_what_its_codes_will(scheme: str) -> None:
    made, inputs = linear(), noise(3, ROWS, IN, seed=2)
    decision = decided(made, **SCHEMES[scheme])
    module = FakeQuantizedLinear(made, decision, SCHEMES[scheme]["levels"])
    found = module(torch.from_numpy(inputs)).detach().numpy()
    np.testing.assert_allclose(found, expected(inputs, decision, made.bias.detach().numpy()), atol=2e-5)
    np.testing.assert_array_equal(module.rounded_weight().detach().numpy(), decision.codes.weights())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_before_training_the_decision_is_the_same(scheme: str) -> None:
    made = linear()
    decision = decided(made, **SCHEMES[scheme])
    found = FakeQuantizedLinear(made, decision, SCHEMES[scheme]["levels"]).decide()
    np.testing.assert_array_equal(found.codes.values, decision.codes.values)
    np.testing.assert_array_equal(found.codes.scales, decision.codes.scales)
    assert (found.codes.group, found.activation_scale) == (decision.codes.group, decision.activation_scale)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_after_training_the_decision_makes_the_same_module(scheme: str) -> None:
    made, levels = linear(), SCHEMES[scheme]["levels"]
    inputs, targets = torch.from_numpy(noise(ROWS, IN, seed=2)), torch.from_numpy(noise(ROWS, OUT, seed=3))
    module = FakeQuantizedLinear(made, decided(made, **SCHEMES[scheme]), levels)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        optimizer.step()
    trained = module.decide()
    assert (trained.codes.values != decided(made, **SCHEMES[scheme]).codes.values).any()
    assert trained.codes.values.dtype == np.int8 and np.abs(trained.codes.values).max() <= levels
    assert trained.codes.scales.dtype == np.float32
    np.testing.assert_array_equal(module.rounded_weight().detach().numpy(), trained.codes.weights())
    again = FakeQuantizedLinear(made, trained, levels)
    torch.testing.assert_close(again(inputs), module(inputs), rtol=0, atol=0)


def test_weights_learn_as_if_nothing_were_rounded() -> None:
    made, inputs = linear(bias=False), torch.from_numpy(noise(ROWS, IN))
    module = FakeQuantizedLinear(made, decided(made, levels=7), levels=7)
    module(inputs).square().sum().backward()
    plain = module.rounded_weight().detach().requires_grad_()
    (inputs @ plain.T).square().sum().backward()
    torch.testing.assert_close(module.weight.grad, plain.grad)


def test_clipped_weights_do_not_learn_and_their_scale_does() -> None:
    made = torch.nn.Linear(3, 1, bias=False)
    codes = Codes(np.array([[1, -7, 7]], np.int8), np.array([[0.5]], np.float32), 3)
    module = FakeQuantizedLinear(made, Decision(codes), levels=7)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.6, -4.0, 3.6]]))  # 1.2 steps, 8 steps below, and 7.2 steps
    module.rounded_weight().sum().backward()
    assert module.weight.grad is not None and module.growth.grad is not None
    assert module.weight.grad.tolist() == [[1.0, 0.0, 1.0]]
    # Inside, a code moves with the scale by what rounding has added to it; outside, by the whole code.
    assert module.growth.grad.item() == pytest.approx(0.5 * ((1 - 1.2) - 7 + (7 - 7.2)))


def test_clipped_inputs_have_no_gradient() -> None:
    made = linear()
    module = FakeQuantizedLinear(made, decided(made, activation_scale=0.01), levels=127)
    inputs = torch.zeros(1, IN)
    inputs[0, :4] = torch.tensor([0.3, 1.2, 1.4, -50.0])  # the largest code stands for 1.27
    inputs.requires_grad_()
    module(inputs).sum().backward()
    assert inputs.grad is not None
    assert (inputs.grad[0] != 0).tolist() == [True, True, False, False] + [True] * (IN - 4)


def test_a_group_of_zeros_stays_one() -> None:
    made = linear()
    with torch.no_grad():
        made.weight[:, :8] = 0
    module = FakeQuantizedLinear(made, decided(made, levels=7, group=8), levels=7)
    module(torch.from_numpy(noise(ROWS, IN))).square().sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in module.parameters() if value.grad is not None)
    assert not module.decide().codes.weights()[:, :8].any()


class Attention(torch.nn.Module):
    """Two Linears of one input, and one that is named by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k = linear(), linear()
        self.to_out = torch.nn.Sequential(linear(), torch.nn.GELU())


def test_linears_are_replaced_by_name() -> None:
    module = Attention()
    decisions = {
        "to_q": decided(module.to_q, smoothing=SMOOTHING, activation_scale=0.02),
        "to_out.0": decided(module.to_out[0]),
    }
    quantize_module(module, decisions, levels=127)
    assert isinstance(module.to_q, FakeQuantizedLinear)
    assert isinstance(module.to_out[0], FakeQuantizedLinear)
    assert isinstance(module.to_k, torch.nn.Linear)
    found = decisions_of(module)
    assert found.keys() == decisions.keys()
    assert found["to_q"].smoothing is not None
    np.testing.assert_array_equal(found["to_q"].smoothing, SMOOTHING)
    assert (found["to_q"].activation_scale, found["to_out.0"].activation_scale) == (0.02, None)


def test_what_was_trained_is_not_what_was_decided() -> None:
    """A module changes neither the Linear that it replaces nor the decision that it is made from."""
    made = linear()
    decision, before = decided(made), made.weight.detach().clone()
    scales = decision.codes.scales.copy()
    module = FakeQuantizedLinear(made, decision, levels=127)
    with torch.no_grad():
        for value in module.parameters():
            value.add_(1.0)
    torch.testing.assert_close(made.weight.detach(), before, rtol=0, atol=0)
    np.testing.assert_array_equal(decision.codes.scales, scales)


def test_decisions_that_fit_no_linear_are_refused() -> None:
    module = Attention()
    decision = decided(module.to_q)
    with pytest.raises(ValueError, match="to_v is no Linear"):
        quantize_module(module, {"to_v": decision}, levels=127)
    with pytest.raises(ValueError, match=r"to_out is no Linear"):
        quantize_module(module, {"to_out": decision}, levels=127)
    with pytest.raises(ValueError, match="beyond 7"):
        quantize_module(module, {"to_q": decision}, levels=7)
    narrow = Decision(Codes(np.zeros((OUT, 3), np.int8), np.ones((OUT, 1), np.float32), 3))
    with pytest.raises(ValueError, match=r"\(6, 3\)"):
        quantize_module(module, {"to_q": narrow}, levels=127)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="activation"):
            quantize_module(module, {"to_q": dataclasses.replace(decision, activation_scale=scale)}, levels=127)
