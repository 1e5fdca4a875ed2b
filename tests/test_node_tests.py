"""ONNX's own tests of its operators, put through wanc: the committed record, and what it says of each case."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

from scripts.node_tests.outcome import EQUAL, REASONS, Outcome, difference
from scripts.node_tests.record import expected, summary

RECORD = json.loads((Path(__file__).resolve().parents[1] / "docs/results/node-tests.json").read_bytes())
ENGINES = tuple(RECORD["engines"])
TOTAL = 1884
LEAST_EQUAL = 1389
"""What was equal before there was a record."""
SAMPLE, SEED = 200, 11
PARTS = 24


@functools.cache
def _process() -> ProcessPoolExecutor:
    """A process of one thread, which forks for the cases."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_keep_to_one_thread)


def _keep_to_one_thread() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _sampled(engine: str) -> list[Outcome]:
    from scripts.node_tests.cases import sample
    from scripts.node_tests.harness import run_cases

    return list(run_cases(sample(SAMPLE, SEED), engine))


def _part(engine: str, part: int) -> list[Outcome]:
    from scripts.node_tests.cases import all_cases
    from scripts.node_tests.harness import run_cases

    return list(run_cases(all_cases()[part::PARTS], engine))


def assert_as_recorded(engine: str, outcomes: list[Outcome]) -> None:
    """Nothing is worse than the record says: what is equal there is equal, and what is refused is told in words."""
    known = expected(RECORD["engines"][engine])
    worse = [outcome for outcome in outcomes if outcome.category not in (EQUAL, known.get(outcome.case, EQUAL))]
    assert not worse, "\n".join(map(str, worse))
    assert all(outcome.reason in REASONS for outcome in outcomes if outcome.category != EQUAL)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_record_is_of_all_cases_and_none_is_wrong(engine: str) -> None:
    part = RECORD["engines"][engine]
    assert sum(part[category] for category in part if category != "cases") == RECORD["total"] == TOTAL
    assert (part["wrong"], part["traceback"]) == (0, 0)
    assert len(expected(part)) == TOTAL - part["equal"]


def test_more_are_equal_than_before_there_was_a_record() -> None:
    assert RECORD["engines"]["onnxruntime"]["equal"] >= LEAST_EQUAL


@pytest.mark.slow
def test_cases_of_as_many_operators_as_there_are() -> None:
    outcomes = _process().submit(_sampled, "onnxruntime").result()
    assert len({outcome.case for outcome in outcomes}) == SAMPLE
    assert_as_recorded("onnxruntime", outcomes)


@pytest.mark.long
@pytest.mark.parametrize(("engine", "part"), [(engine, part) for engine in ENGINES for part in range(PARTS)])
def test_all_cases(engine: str, part: int) -> None:
    assert_as_recorded(engine, _process().submit(_part, engine, part).result())


# The harness itself: it finds what it is for.


@pytest.mark.parametrize(
    ("actual", "found"),
    [
        ({"y": np.float32([1, 2])}, None),
        ({"z": np.float32([1, 2])}, "outputs ['z'], not ['y']"),
        ({"y": np.float64([1, 2])}, "y: float64 (2,), not float32 (2,)"),
        ({"y": np.float32([[1, 2]])}, "y: float32 (1, 2), not float32 (2,)"),
        ({"y": np.float32([1, 2.01])}, "y: Not equal to tolerance"),
        ({"y": np.float32([1, np.nan])}, "y: Not equal to tolerance"),
    ],
)
def test_a_difference_in_names_dtypes_shapes_or_values_is_found(actual: dict[str, Any], found: str | None) -> None:
    said = difference(actual, {"y": np.float32([1, 2])}, 1e-3, 0.0)
    assert said == found if found is None else str(said).startswith(found)


def test_whole_numbers_are_compared_to_the_last_one_and_texts_by_their_letters() -> None:
    assert difference({"y": np.int64([5, 6])}, {"y": np.int64([5, 7])}, 1e-3, 0.0) is not None
    assert difference({"y": np.uint8([0, 6])}, {"y": np.uint8([1, 6])}, 1e-3, 0.0, codes=1) is None
    assert difference({"y": np.uint8([0, 6])}, {"y": np.uint8([255, 6])}, 1e-3, 0.0, codes=1) is not None
    assert difference({"y": np.array(["a"])}, {"y": np.array(["b"])}, 1e-3, 0.0) is not None


def test_a_refusal_without_a_name_is_no_record() -> None:
    with pytest.raises(ValueError, match="without a name"):
        summary([Outcome("test_x", "refused", "error: something new")])


def _planted(code: str) -> list[Outcome]:
    """The outcomes of two cases of Neg, of which `code` strikes the first one where its engine is executed."""
    import signal

    from scripts.node_tests import harness, roads
    from scripts.node_tests.cases import Case

    x = np.float32([1, 2])
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Neg (x) }'
    )
    cases = [Case(name, model, {"x": x}, {"y": -x}, 1e-3, 1e-7) for name in ("struck", "sound")]
    run = roads.Road.run

    def strike(road: roads.Road, given: onnx.ModelProto, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = run(road, given, inputs)
        if not (first := Path(os.environ["STRUCK"])).exists():
            first.touch()
            match code:
                case "wrong":
                    return {"y": outputs["y"] + 1}
                case "raises":
                    raise KeyError("a bug")
                case "crashes":
                    os.kill(os.getpid(), signal.SIGSEGV)
        return outputs

    roads.Road.run = strike  # in this process, whose forks run the cases
    try:
        return list(harness.run_cases(cases, "onnxruntime"))
    finally:
        roads.Road.run = run


@pytest.mark.parametrize(("code", "category"), [("wrong", "wrong"), ("raises", "traceback"), ("crashes", "traceback")])
def test_planted_faults_are_found_and_the_next_case_is_run(tmp_path: Path, code: str, category: str) -> None:
    outcomes = _process().submit(_struck, code, str(tmp_path / "struck")).result()
    assert [(outcome.case, outcome.category) for outcome in outcomes] == [("struck", category), ("sound", EQUAL)]


def _struck(code: str, once: str) -> list[Outcome]:
    os.environ["STRUCK"] = once
    return _planted(code)
