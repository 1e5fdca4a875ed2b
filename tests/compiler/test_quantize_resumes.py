"""A component whose quantising is killed: it goes on where it was, and comes to the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from wanc.compiler.host.chain import Chain
from wanc.compiler.host.sample_states import NOTE
from wanc.compiler.program.quant_table import QuantTable
from wanc.compiler.quantize import component, decisions
from wanc.compiler.quantize.kept_decisions import KeptDecisions
from wanc.compiler.stages.worker import call_in_worker
from wanc.errors import UserError

from .fusing import files_of
from .transformer import WIDTH, FloatDenoiser, make, quantised

ATTENTION = "fp8, attention as well"
SCHEMES = ("int8", *(pytest.param(one, marks=pytest.mark.slow) for one in ("int4-weight", "fp8", ATTENTION)))


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


class Quantising(NamedTuple):
    """What a quantising that nothing stops makes, and the groups that it decides on."""

    files: dict[str, bytes]
    groups: list[str]


@pytest.fixture(scope="module")
def undisturbed(denoiser: FloatDenoiser, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Quantising]:
    """By scheme, each once."""

    @cache
    def of(scheme: str) -> Quantising:
        with pytest.MonkeyPatch.context() as patch:
            groups = recorded(patch)
            return Quantising(quantise(denoiser, tmp_path_factory.mktemp("undisturbed"), "out", scheme), groups)

    return of


def quantise(denoiser: FloatDenoiser, folder: Path, name: str, scheme: str) -> dict[str, bytes]:
    """What is made in `folder / name`, in pieces of about one Linear; what is finished lies in `folder / kept`."""
    out = folder / name
    out.mkdir(parents=True)
    (folder / "kept").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(component, "Chain", partial(Chain, most_weight_bytes=4 * WIDTH * WIDTH))
        attention, codes = ("fp8", "fp8") if scheme == ATTENTION else ("float", scheme)
        _, table = quantised(denoiser, out, codes, kept=folder / "kept", attention=attention)
    table.write(out)
    return {name: path.read_bytes() for name, path in files_of(out).items()}


def quantise_and_die(folder: Path, scheme: str, decided: int) -> None:
    """The same, killed as soon as so many groups are decided on."""
    keep, count = KeptDecisions.keep, 0

    def keep_and_die(*arguments: Any) -> None:
        nonlocal count
        keep(*arguments)
        count += 1
        if count == decided:
            os.kill(os.getpid(), signal.SIGKILL)

    KeptDecisions.keep = keep_and_die
    (folder / "model").mkdir(parents=True)
    quantise(make(folder / "model"), folder, "killed", scheme)


def killed(folder: Path, scheme: str, decided: int) -> None:
    with pytest.raises(UserError, match="was killed"):
        call_in_worker("quantize", quantise_and_die, folder, scheme, decided)


def recorded(patch: pytest.MonkeyPatch) -> list[str]:
    """The groups that are decided on from now on."""
    found: list[str] = []
    decide = decisions.decisions_on

    def record(group: Any, *others: Any) -> Any:
        found.append(group.name)
        return decide(group, *others)

    patch.setattr(decisions, "decisions_on", record)
    return found


@pytest.fixture
def decided_now(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return recorded(monkeypatch)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_kill_costs_what_was_not_finished(
    denoiser: FloatDenoiser,
    undisturbed: Callable[[str], Quantising],
    scheme: str,
    tmp_path: Path,
    decided_now: list[str],
) -> None:
    expected, every = undisturbed(scheme)
    decided_now.clear()
    assert len(every) > 10
    for decided in (1, 5):  # behind what the first kill has left
        killed(tmp_path / "killed" / str(decided), scheme, decided)
        decided_now.clear()
        folder = tmp_path / "killed" / str(decided)
        assert quantise(denoiser, folder, "out", scheme) == expected
        assert decided_now == every[decided:]
    decided_now.clear()
    assert quantise(denoiser, folder, "again", scheme) == expected
    assert decided_now == [], "all of it was kept"


@pytest.mark.parametrize(
    "what",
    [
        "decision-0003-0000.safetensors",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (NOTE, "state-2-*.npy")),
    ],
)
def test_what_is_damaged_is_made_again(
    denoiser: FloatDenoiser,
    undisturbed: Callable[[str], Quantising],
    what: str,
    tmp_path: Path,
    decided_now: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A decision costs that of its group; samples are executed once more, and nothing is decided again."""
    expected, every = undisturbed("int8")
    killed(tmp_path / "killed", "int8", 6)
    path = sorted((tmp_path / "killed/kept").glob(what))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    decided_now.clear()
    assert quantise(denoiser, tmp_path / "killed", "out", "int8") == expected
    lost = 1 if what.startswith("decision") else 0
    assert len(decided_now) == len(every) - 6 + lost
    assert [record.getMessage() for record in caplog.records] == [f"{path} is not what was kept: it is made again"]


def test_a_range_that_is_damaged_is_found_again(
    denoiser: FloatDenoiser, tmp_path: Path, decided_now: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a piece in which every Linear is decided on: samples are executed once more, and nothing is decided again."""
    expected = quantise(denoiser, tmp_path, "out", ATTENTION)
    path = sorted((tmp_path / "kept").glob("range-*.json"))[2]
    path.write_bytes(path.read_bytes().replace(b".", b"1.", 1))
    decided_now.clear()
    assert quantise(denoiser, tmp_path, "again", ATTENTION) == expected
    assert decided_now == []
    assert [record.getMessage() for record in caplog.records] == [f"{path} is not what was kept: it is made again"]


def test_a_table_of_what_was_kept_says_the_same(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    """Of a whole model, as stages have it, in one piece."""
    tables: list[QuantTable] = []
    (tmp_path / "kept").mkdir()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tables.append(quantised(denoiser, tmp_path / name, kept=tmp_path / "kept")[1])
    assert tables[0] == tables[1]
