"""The compiler's side of the error tree; its root lives in the runtime, which ships alone."""

from __future__ import annotations

from wanc.runtime.errors import (
    EXIT_DATA,
    EXIT_IO,
    EXIT_NO_INPUT,
    EXIT_REFUSED,
    EXIT_TEMPORARY,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    BundleError,
    DeadlineExceeded,
    RemoteCause,
    RequestCancelled,
    TargetError,
    TooManyRequests,
    UserError,
    VerificationError,
    render,
)

__all__ = [
    "EXIT_DATA",
    "EXIT_IO",
    "EXIT_NOT_COMPARABLE",
    "EXIT_NO_INPUT",
    "EXIT_REFUSED",
    "EXIT_TEMPORARY",
    "EXIT_UNAVAILABLE",
    "EXIT_USAGE",
    "BundleError",
    "CheckpointError",
    "DeadlineExceeded",
    "NotBuiltYetError",
    "OutputError",
    "RecipeError",
    "RemoteCause",
    "RequestCancelled",
    "TargetError",
    "TooManyRequests",
    "UserError",
    "VerificationError",
    "render",
]

EXIT_NOT_COMPARABLE = 4
"""Of a comparison of things that have too little in common, or of which too little is known."""


class RecipeError(UserError):
    """A recipe that cannot be read, or that asks for something impossible.

    `key` is the dotted path of what asks for it, where that is known and its place in the text is not.
    """

    exit_code = EXIT_USAGE

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        exit_code: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint, exit_code=exit_code)
        self.key = key


class NotBuiltYetError(RecipeError):
    """A recipe that asks for something that wanc knows of and cannot do yet."""


class CheckpointError(UserError):
    """Model files that are missing, damaged, or of a model that wanc does not know."""

    exit_code = EXIT_DATA


class OutputError(UserError):
    """A result that could not be written: no space, no permission, a failing disk."""

    exit_code = EXIT_IO
