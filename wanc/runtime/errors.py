"""Faults that the reader can mend, as opposed to bugs, which keep their traceback.

This is the root of the whole error tree: the compiler's own errors (`wanc.errors`) derive from it, so that `wanc` and a
bundle's `run.py` print faults in one form.
"""

from __future__ import annotations

# sysexits(3); 0 is done, 1 a gate or a verification said no, 2 usage or recipe error.
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_DATA = 65
EXIT_NO_INPUT = 66
EXIT_UNAVAILABLE = 69
EXIT_IO = 74
EXIT_TEMPORARY = 75


class UserError(Exception):
    """A fault outside the program: what happened, where, what to do.

    `where` is a path, with `:line:column` when the fault sits in a text file. The cause, if there is one, is the
    ordinary `__cause__` (`raise UserError(...) from error`).
    """

    exit_code = EXIT_USAGE

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None, exit_code: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class BundleError(UserError):
    """A bundle that cannot be read: not one, made for another reader, or damaged."""

    exit_code = EXIT_DATA


class VerificationError(BundleError):
    """A bundle whose files are not exactly those that its manifest lists."""

    exit_code = EXIT_REFUSED


class TargetError(UserError):
    """Nothing in the bundle fits what was asked of it on this machine."""

    exit_code = EXIT_UNAVAILABLE


class RequestCancelled(UserError):
    """A request that was called off."""

    exit_code = EXIT_TEMPORARY


class DeadlineExceeded(UserError):
    """A request that could not be done in the time that it had."""

    exit_code = EXIT_TEMPORARY


class TooManyRequests(UserError):
    """A request that is not taken, since as many are there already as may be."""

    exit_code = EXIT_TEMPORARY


class RemoteCause(Exception):
    """What another process raised, as text, and its hint."""

    def __init__(self, text: str, hint: str | None = None) -> None:
        super().__init__(text, hint)
        self.text, self.hint = text, hint

    def __str__(self) -> str:
        return self.text


def render(error: UserError) -> str:
    """The text that people see: `error:`, then a `caused by:` for each link of the chain, then the `hint:`s."""
    lines = [f"error: {error}"]
    hints = [error.hint]
    cause = error.__cause__
    while cause is not None:
        # OSError prints as "[Errno 28] No space left on device": the number helps nobody.
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        lines.append(f"caused by: {reason}")
        hints.append(getattr(cause, "hint", None))
        cause = cause.__cause__
    lines += [f"hint: {hint}" for hint in hints if hint]
    return "\n".join(lines)
