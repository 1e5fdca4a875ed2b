"""Long tests: how they are cut into parts, and which of them a change is tested with."""

from __future__ import annotations

import pytest

from scripts import test_long

TESTS = [f"tests/test_{file}.py::test_it[{number}]" for file in ("one", "two") for number in range(11)]


def test_parts_are_of_one_file_and_small() -> None:
    parts = test_long.parts(TESTS)
    assert [name.rpartition(" ")[::2] for name in parts] == [
        (f"tests/test_{file}.py", number) for file in ("one", "two") for number in ("1", "2")
    ]
    assert [test for tests in parts.values() for test in tests] == TESTS
    assert max(map(len, parts.values())) <= test_long.MOST_TESTS
    assert all(test.startswith(f"{name.partition(' ')[0]}::") for name, tests in parts.items() for test in tests)


def test_a_sample_takes_no_longer_than_it_may() -> None:
    seconds = {test: 10.0 * number for number, test in enumerate(TESTS)}
    chosen = test_long.sample(TESTS, seconds, "a seed")
    assert chosen and set(chosen) < set(TESTS)
    assert sum(map(seconds.__getitem__, chosen)) <= test_long.SAMPLE_SECONDS


def test_a_sample_is_the_seeds() -> None:
    samples = {seed: test_long.sample(TESTS, {}, seed) for seed in map(str, range(100))}
    assert all(test_long.sample(TESTS, {}, seed) == chosen for seed, chosen in samples.items())
    # In time, all of them are run.
    assert {test for chosen in samples.values() for test in chosen} == set(TESTS)


def test_what_takes_half_an_hour_is_in_no_sample() -> None:
    """However little of it the record knows."""
    tests = [f"{file}test_it" for file in test_long.HALF_AN_HOUR]
    assert all((test_long.ROOT / file.removesuffix("::")).is_file() for file in test_long.HALF_AN_HOUR)
    assert {test for seed in "abc" for test in test_long.sample([*TESTS, *tests], {}, seed)} <= set(TESTS)


def test_the_record_counts_what_passed() -> None:
    entries = {"one 1": {"seconds": 1.5, "tests": {"a": 0.5, "b": 0.25}}, "two 1": {"seconds": 2, "tests": {"c": 1.0}}}
    record = test_long.record("abc", entries)
    assert (record["commit"], record["passed"], record["seconds"]) == ("abc", 3, 3.5)
    assert record["parts"] == entries


def test_a_part_that_fails_is_no_part_of_the_record(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """And what has passed is not run again."""
    ran: list[str] = []

    def run(name: str, tests: list[str]) -> dict[str, object] | None:
        ran.append(name)
        return {"seconds": 1.0, "tests": dict.fromkeys(tests, 0.1)} if name != "two" or len(ran) > 2 else None

    monkeypatch.setattr(test_long, "ROOT", tmp_path)
    monkeypatch.setattr(test_long, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(test_long, "FOLDER", tmp_path / "parts")
    monkeypatch.setattr(test_long, "_commit", lambda: "abc")
    monkeypatch.setattr(test_long, "_run", run)
    wanted = {"one": ["a"], "two": ["b"]}
    with pytest.raises(SystemExit, match="failed: two"):
        test_long.run_parts(wanted)
    assert not (tmp_path / "record.json").exists()
    test_long.run_parts(wanted)
    assert ran == ["one", "two", "two"]
    assert test_long.known_seconds() == {"a": 0.1, "b": 0.1}
