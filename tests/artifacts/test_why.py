"""Why a stage runs again."""

from __future__ import annotations

import pytest

from wanc.artifacts.canonical import key_of
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.why import ABSENT, Change, explain_miss
from wanc.runtime.strict_json import JsonObject


def record(document: JsonObject, stage: str = "export") -> ActionRecord:
    return ActionRecord(key_of(document), stage, document, {}, {})


BASE: JsonObject = {"stage": "export", "params": {"steps": 40, "smooth": {"alpha": 0.5}}, "inputs": [{"digest": "a"}]}


def changed(**parts: object) -> JsonObject:
    return {**BASE, **parts}  # type: ignore[dict-item]


def test_a_stage_that_never_ran() -> None:
    assert explain_miss("export", BASE, []) is None
    assert explain_miss("export", BASE, [record(BASE, "fuse")]) is None


def test_a_document_that_is_recorded_is_no_miss() -> None:
    assert explain_miss("export", BASE, [record(BASE)]) == ()


def test_the_closest_record_explains() -> None:
    near = changed(params={"steps": 40, "smooth": {"alpha": 0.6}})
    far = changed(params={"steps": 4, "smooth": {"alpha": 0.7}}, inputs=[])
    for records in ([record(near), record(far)], [record(far), record(near)]):
        assert explain_miss("export", BASE, records) == (Change("params.smooth.alpha", 0.6, 0.5),)


def test_of_equals_the_smallest_key() -> None:
    records = [record(changed(seed=number)) for number in range(5)]
    expected = min(records, key=lambda item: item.key).document["seed"]
    for order in (records, records[::-1]):
        assert explain_miss("export", BASE, order) == (Change("seed", expected, ABSENT),)


@pytest.mark.parametrize(
    ("new", "change"),
    [
        (changed(inputs=[{"digest": "b"}]), Change("inputs[0].digest", "a", "b")),
        (changed(inputs=[{"digest": "a"}, 7]), Change("inputs[1]", ABSENT, 7)),
        (changed(tools={"onnx": "1"}), Change("tools.onnx", ABSENT, "1")),
        (changed(tools={}), Change("tools", ABSENT, {})),
        (changed(tools=None), Change("tools", ABSENT, None)),
        (changed(files={"a/b.c": 1}), Change('files["a/b.c"]', ABSENT, 1)),
        ({**BASE, "a b": 1}, Change('["a b"]', ABSENT, 1)),
    ],
)
def test_paths_of_changes(new: JsonObject, change: Change) -> None:
    assert explain_miss("export", new, [record(BASE)]) == (change,)


def test_true_is_not_one() -> None:
    assert explain_miss("export", changed(a=True), [record(changed(a=1))]) == (Change("a", 1, True),)


def test_removed_leaves() -> None:
    new = {name: value for name, value in BASE.items() if name != "inputs"}
    assert explain_miss("export", new, [record(BASE)]) == (Change("inputs[0].digest", "a", ABSENT),)
    assert str(ABSENT) == "(absent)"
