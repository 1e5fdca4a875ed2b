"""One list of options: the library, `wanc run` and `run.py` know the same ones, in one order and in the same words."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
import typer.main

from wanc import cli
from wanc.runtime.errors import UserError
from wanc.runtime.main import _parser
from wanc.runtime.options import OPTIONS, VIDEO, RunLimits, options_of
from wanc.runtime.request import Request

OF_FILES = ("prompts", "stream", "keep_partial")
"""What says nothing of a video itself."""
OWN = {
    "run.py": ["help", "output", "json", "selftest"],
    "wanc run": ["bundle", "output", "as_json", "quiet", "verbose", "log_file"],
}
"""What a command line has besides."""


def test_run_py_has_them_all_and_in_this_order() -> None:
    actions = [action for action in _parser()._actions if action.dest not in OWN["run.py"]]
    shown = [(action.option_strings, action.dest, action.type, action.metavar, action.help) for action in actions]
    typed = {o.name: (None, None) if o.type is bool else (o.type, o.metavar) for o in OPTIONS}
    assert shown == [([o.flag], o.name, *typed[o.name], o.help) for o in OPTIONS]
    assert all(action.default is None for action in actions), "what is not given is not an option of another task"


def test_wanc_run_has_them_all_and_in_this_order() -> None:
    command = typer.main.get_command(cli.app).commands["run"]  # type: ignore[attr-defined]
    parameters = [entry for entry in command.params if entry.name not in OWN["wanc run"]]
    shown = [(entry.opts, entry.name, entry.metavar, entry.help) for entry in parameters]
    assert shown == [([o.flag], o.name, o.metavar or None, o.help) for o in OPTIONS]
    annotations = cli.run.__annotations__
    assert [get_args(annotations[o.name])[0] for o in OPTIONS] == [o.type | None for o in OPTIONS]
    assert all(entry.default is None for entry in parameters)


def test_a_request_has_those_that_make_a_video() -> None:
    fields = [field.name for field in dataclasses.fields(Request)]
    assert fields == [option.name for option in options_of(VIDEO) if option.name not in OF_FILES]


def test_what_every_task_is_told_is_how_graphs_are_executed_and_where_a_trace_is() -> None:
    assert [*RunLimits.__annotations__, "trace"] == [option.name for option in OPTIONS if option.task is None]


def test_what_is_not_given_is_said_where_something_else_holds() -> None:
    assert next(option.help for option in OPTIONS if option.name == "seed").endswith("; 0 if unset.")
    assert Request("a").seed == 0
    assert all(option.help[0].isupper() and option.help.endswith(".") for option in OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "7"}, "seed is '7', not a whole number"),
        ({"steps": 2.0}, "steps is 2.0, not a whole number"),
        ({"shape": 64}, "shape is 64, not a text"),
        ({"negative_prompt": b"blurred"}, "negative_prompt is b'blurred', not a text"),
        ({"latents": "noise.npy"}, "latents is 'noise.npy', not an array"),
        ({"prompt": None}, "prompt is None, not a text"),
    ],
)
def test_a_value_of_another_type_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Request(**{"prompt": "a", **options})  # type: ignore[arg-type]
    assert caught.value.message == message


def test_numpys_whole_numbers_are_whole_numbers() -> None:
    assert Request("a", seed=np.int64(7), frames=np.int32(5)).seed == 7  # type: ignore[arg-type]
