"""Modules that keep something from call to call are refused, and those that only seem to are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from wanc.compiler.export.stateless import HINT, check_stateless
from wanc.errors import RecipeError

X = torch.zeros(2, 3)


class Holding(nn.Module):
    """A module with a buffer, a parameter, and a place for something that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(4, 3), persistent=False)
        self.weight = nn.Parameter(torch.ones(3))
        self.calls: Any = 0
        self.past: list[torch.Tensor] = []
        self.norm = nn.BatchNorm1d(3)
        self.table: torch.Tensor | None = None
        self.inner = nn.ModuleDict({"deep": nn.Linear(3, 3)})


class Counter(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.add_(1.0)
        return x + self.kept[:1]


class Cache(Holding):
    """What it writes at one call is what it writes at the next: only that it writes tells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept[:2] = x
        return self.kept.sum(0)


class ZerosIntoCache(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.index_fill_(0, torch.tensor([1]), 0.0)
        return x


class Rebound(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = self.kept + 1
        return x + self.kept[:1]


class BehindItsBack(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.data.add_(1.0)
        return x


class NormInTraining(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm.train()(x)


class FunctionalNorm(Holding):
    """The kernel writes to the running mean, which no version counter tells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


class Decaying(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.mul_(0.9)
        return x * self.weight


class Deep(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        linear = self.inner["deep"]
        assert isinstance(linear, nn.Linear)
        linear.bias.data = linear.bias.data + 1
        return linear(x)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Counter, "kept"),
        (Cache, "kept"),
        (ZerosIntoCache, "kept"),
        (Rebound, "kept"),
        (BehindItsBack, "kept"),
        (NormInTraining, "norm.running_mean"),
        (FunctionalNorm, "norm.running_mean"),
        (Decaying, "weight"),
        (Deep, "inner.deep.bias"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_it_writes_to_is_named(make: type[nn.Module], name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_stateless(make().eval(), [X], "package:build")
    assert (caught.value.message, caught.value.hint) == (
        f"package:build: forward changes {name}, which the module keeps",
        HINT,
    )


class Calls(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


class Attribute(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + x.mean()
        return x + self.calls


class Longer(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past.append(x)
        return torch.cat(self.past)


class Previous(Holding):
    """The same twice, where nothing else comes between."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last, self.table = self.table, x
        return x if last is None else last


@pytest.mark.parametrize("make", [Calls, Attribute, Longer, Previous])
def test_results_that_depend_on_earlier_calls(make: type[nn.Module]) -> None:
    with pytest.raises(RecipeError) as caught:
        check_stateless(make().eval(), [X], "package:build")
    assert caught.value.message == "package:build: forward gives other results when it is called again"


class Table(Holding):
    """As rotary embeddings have one: computed when it is first needed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < len(x):
            self.table = torch.arange(len(x)).float().cos()[:, None]
            self.register_buffer("cosines", self.table, persistent=False)
        return x * self.table[: len(x)]


class GrowingTable(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.kept) < 8:
            self.kept = torch.zeros(8, 3)
        return x + self.kept[:2]


class InItsArgument(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1).mul_(2)


class InACopy(Holding):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copy = self.kept.clone()
        copy[:2] = x
        return copy.sum(0)


class Dropout(Holding):
    """Other draws at every call, and no state of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, training=True)


class NotANumber(Holding):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int, None]:
        return torch.log(-x.abs()), len(x), None


@pytest.mark.parametrize("make", [Holding, Table, GrowingTable, InItsArgument, InACopy, Dropout, NotANumber])
def test_what_keeps_nothing_that_counts_is_fine(make: type[nn.Module]) -> None:
    module = make().eval()
    if make is Holding:
        module = module.norm.eval()
    check_stateless(module, [X], "package:build")


def test_the_callers_random_numbers_go_on_as_they_would() -> None:
    module = Dropout()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_stateless(module, [X], "package:build")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("returned", "message"),
    [("text", "forward returns a str"), (None, "forward returns no tensor"), (3, "forward returns no tensor")],
)
def test_results_that_are_no_tensors(returned: object, message: str) -> None:
    class Odd(nn.Module):
        def forward(self, _: torch.Tensor) -> object:
            return returned

    with pytest.raises(RecipeError) as caught:
        check_stateless(Odd(), [X], "package:build")
    assert caught.value.message == f"package:build: {message}"
