"""What tests in several folders share: tiny-wan's bundle, built once, and the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from wanc import cli
from wanc.compiler.pipeline import build
from wanc.recipe.load import load

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("fixed", derandomize=True)  # the same examples every time
settings.load_profile("fixed")


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


Wanc = Callable[..., Finished]


@pytest.fixture(scope="session")
def tiny_recipe() -> Path:
    return ROOT / "recipes" / "tiny-wan.yaml"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of recipes/tiny-wan.yaml, with its store beside it. Tests read it and never change it."""
    (loaded,) = load(tiny_recipe)
    # Tests that run side by side build it together: the store sees to it that each stage is computed once.
    together = "PYTEST_XDIST_WORKER" in os.environ
    output = tmp_path_factory.getbasetemp().parent / "tiny" if together else tmp_path_factory.mktemp("tiny")
    return build(loaded, output, progress=False).bundle


@pytest.fixture
def wanc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Wanc:
    """Runs `wanc ARGUMENTS…` in this process, through its console entry point."""

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["wanc", *map(str, arguments)])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return Finished(code, *capfd.readouterr())

    return run
