"""How long to wait, where a variable of the environment says it."""

from __future__ import annotations

import os

from wanc.errors import UserError


def timeout_seconds(variable: str, default: float, *, allow_zero: bool) -> float:
    """The seconds in an environment variable; `default` where it is not set, or empty.

    Raises UserError where it is no number above 0, or 0 where that is not allowed.
    """
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not (seconds > 0 or (seconds == 0 and allow_zero)):  # also refuses NaN
        raise UserError(f"{variable} must be a number of seconds, not {text!r}")
    return seconds
