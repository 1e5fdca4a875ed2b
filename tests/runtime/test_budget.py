"""The budget of a run: as planned, as asked, as the machine has it; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wanc.runtime import budget as module
from wanc.runtime import memory
from wanc.runtime.budget import MemoryFacts, chosen_budget
from wanc.runtime.byte_size import byte_size
from wanc.runtime.engine_file import EngineFile, EngineMemory
from wanc.runtime.errors import BundleError, TargetError, UserError
from wanc.runtime.strict_json import Fields

MANIFEST: dict[str, Any] = {
    "memory": {
        "budgets": {"device": 1000},
        "shapes": {
            "small": {"text": {"values": 10}, "denoise": {"values": 100}, "decode": {"values": 20}},
            "large": {"text": {"values": 10}, "denoise": {"values": 400}, "decode": {"values": 80}},
        },
    }
}


def engine_file(component: str, memory: EngineMemory | None) -> EngineFile:
    return EngineFile(component, "step", 0, "any", "cpu", None, "cpu", component, (), (), memory=memory)


FILES = [
    engine_file("text_encoder", EngineMemory(50, 60)),
    engine_file("denoiser_high", EngineMemory(200, 250)),
    engine_file("denoiser_low", EngineMemory(200, 240)),
    engine_file("vae_decoder", EngineMemory(30, 300)),
]


@pytest.fixture
def planned() -> MemoryFacts:
    facts = MemoryFacts.read(Fields(MANIFEST, "manifest.json"), ["small", "large"], FILES)
    assert facts is not None
    return facts


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how much memory the machine has left."""

    def has(size: int | None) -> None:
        monkeypatch.setattr(module, "available_bytes", lambda: size)

    has(10**12)
    return has


def test_what_a_phase_takes_follows_from_its_engines(planned: MemoryFacts) -> None:
    denoise, decode = planned.shapes["small"]["denoise"], planned.shapes["small"]["decode"]
    assert (denoise.weights, denoise.least, denoise.whole) == (400, 350, 500)
    assert decode.as_json(1000) == {"values": 20, "weights": 30, "least": 320, "peak": 320}
    assert denoise.as_json(450)["peak"] == 450
    assert planned.least == 350


@pytest.mark.parametrize(
    ("asked", "machine_has", "found"), [(None, 10**12, 1000), ("2KiB", 10**12, 2048), (None, 600, 600)]
)
def test_the_budget_is_what_was_asked_and_no_more_than_there_is(
    planned: MemoryFacts, machine: Any, asked: str | None, machine_has: int, found: int
) -> None:
    machine(machine_has)
    assert chosen_budget(planned, asked) == found


def test_where_the_system_does_not_say_the_recipe_is_believed(planned: MemoryFacts, machine: Any) -> None:
    machine(None)
    assert chosen_budget(planned, None) == 1000


def test_the_least_budget_works_and_one_byte_less_is_refused(planned: MemoryFacts, machine: Any) -> None:
    assert chosen_budget(planned, "350") == 350
    with pytest.raises(TargetError, match=r"the budget is 349 bytes.* takes 350: 1 are missing") as caught:
        chosen_budget(planned, "349")
    assert caught.value.hint is not None and "at least 350 bytes" in caught.value.hint
    machine(100)
    with pytest.raises(TargetError, match=r"this machine has left 100 bytes.*250 are missing"):
        chosen_budget(planned, None)


def test_a_bundle_without_a_plan_keeps_no_budget() -> None:
    assert chosen_budget(None, None) is None
    with pytest.raises(UserError, match="not planned within a budget"):
        chosen_budget(None, "1GiB")


def test_more_frames_take_more_and_fewer_as_much(planned: MemoryFacts) -> None:
    assert [planned.values("small", "denoise", share) for share in (0.5, 1.0, 2.0)] == [100, 100, 200]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("budgets", "device"), 0),
        (("budgets", "device"), "1GiB"),
        (("budgets",), None),
        (("shapes", "large"), None),
        (("shapes", "small", "text"), {}),
        (("shapes", "small", "decode", "values"), -1),
        (("shapes", "small", "decode", "values"), 0.5),
        (("shapes", "small", "decode", "values"), 2**60),
    ],
)
def test_what_no_plan_says_is_refused_by_its_field(path: tuple[str, ...], value: object) -> None:
    import copy

    document = copy.deepcopy(MANIFEST)
    place = document["memory"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BundleError, match=path[-1]):
        MemoryFacts.read(Fields(document, "manifest.json"), ["small", "large"], FILES)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("6GiB", 6 * 2**30), ("1.5 KiB", 1536), ("512MiB", 2**29)])
def test_sizes_are_read_with_and_without_a_unit(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "GiB", "-1", "1GB", "6 gib", "1e9", "0MiB", "٣", "9" * 17, "1\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no size in bytes"):
        byte_size(text)


@pytest.mark.parametrize(
    ("line", "controller", "name"), [("0::/a/b", "", "memory.max"), ("4:cpu,memory:/a/b", "memory", "limit")]
)
@pytest.mark.parametrize("group", ["a/b", "a", ""])
def test_the_limit_of_any_group_around_a_container_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, controller: str, name: str, group: str
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    groups = tmp_path / "groups"
    groups.write_text(f"9:pids:/elsewhere\n{line}\n")
    monkeypatch.setattr(memory, "GROUPS", groups)
    monkeypatch.setattr(memory, "HIERARCHIES", {controller: (tmp_path, name)})
    free = memory.available_bytes()
    if free is None:
        pytest.skip("this system does not say")
    limit = tmp_path / group / name
    limit.write_text("max\n")
    assert (memory.available_bytes() or 0) > 2**20
    limit.write_text(f"{2**30}\n")
    assert (memory.available_bytes() or 0) < 2**30
    limit.write_text("1000\n")
    assert memory.available_bytes() == 0
