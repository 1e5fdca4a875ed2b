"""Calibration's mathematics come out the same, bit by bit, whatever the libraries below them are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .settings import PLAIN, settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, str]]:
    """Digests by setting and part, each setting in a process of its own."""
    told = set().union(*settings().values())
    plain = {name: value for name, value in os.environ.items() if name not in told}
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.calibration.settings"],
            env={**plain, **setting, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, setting in settings().items()
    }
    outputs = {name: process.communicate()[0] for name, process in running.items()}
    assert {process.returncode for process in running.values()} == {0}
    lines = {name: [line.split(" ", 1) for line in output.splitlines()] for name, output in outputs.items()}
    return {name: {part: digest for digest, part in entries} for name, entries in lines.items()}


def test_the_settings_take_effect(found: dict[str, dict[str, str]]) -> None:
    assert len({parts[PLAIN] for parts in found.values()}) > 1


@pytest.mark.parametrize("setting", [name for name in settings() if name != "none"])
def test_nothing_of_calibration_depends_on_one(found: dict[str, dict[str, str]], setting: str) -> None:
    expected, ours = found["none"], found[setting]
    assert ours.keys() == expected.keys()
    assert [part for part in expected if ours[part] != expected[part] and part != PLAIN] == []
