"""An error of another process: raised here in the words in which it was raised there."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BundleError, RemoteCause, TargetError, UserError, VerificationError
from ..interface import InputError
from ..strict_json import Fields, JsonObject, JsonValue

KINDS: Mapping[str, type[UserError]] = {
    kind.__name__: kind for kind in (UserError, BundleError, VerificationError, TargetError, InputError)
}
MOST_CHARACTERS = 10_000
"""Of one text: libraries quote whole graphs."""


def error_as_json(error: BaseException) -> JsonObject:
    """What `read_error` makes the same error of; one that is a bug becomes a TargetError that names it."""
    if not isinstance(error, UserError):
        error = TargetError(f"an execution failed: {type(error).__name__}: {error}")
    kind = [name for name, known in KINDS.items() if isinstance(error, known)][-1]  # the narrowest
    causes: list[JsonValue] = []
    cause = error.__cause__
    while cause is not None and len(causes) < 10:
        causes.append(_short(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__))
        cause = cause.__cause__
    return {
        "type": kind,
        "message": _short(error.message),
        "where": error.where and _short(error.where),
        "hint": error.hint and _short(error.hint),
        "exit_code": error.exit_code,
        "causes": causes,
    }


def read_error(fields: Fields) -> UserError:
    """The error, with its causes. Raises BundleError where these are not the fields of one."""
    kind = KINDS.get(fields.text("type"))
    if kind is None:
        fields.refuse("type", f"is {ascii(fields.text('type'))[:40]}, not one of {', '.join(KINDS)}")
    error: UserError = kind(
        fields.text("message"),
        where=fields.optional_text("where"),
        hint=fields.optional_text("hint"),
        exit_code=fields.integer("exit_code", minimum=1, maximum=255),
    )
    last: BaseException = error
    for text in fields.texts("causes"):
        last.__cause__ = RemoteCause(text)
        last = last.__cause__
    return error


def _short(text: object) -> str:
    return str(text)[:MOST_CHARACTERS].encode("utf-8", "backslashreplace").decode()
