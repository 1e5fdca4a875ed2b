"""What libraries note down about themselves is not for those who use wanc; their errors are."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from io import StringIO


@contextmanager
def only_errors(*loggers: str) -> Generator[None]:
    """Loggers, by name, say nothing below an error meanwhile."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet(*loggers: str) -> Generator[None]:
    """The same, and no warnings and nothing on stdout either."""
    with only_errors(*loggers), warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
