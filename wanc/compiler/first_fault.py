"""What is wrong with a document that pydantic refuses, in one line."""

from __future__ import annotations

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """The first fault behind the field that has it: `components.model: Field required`."""
    fault = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, fault["loc"])) or "the document"
    return f"{field}: {fault['msg']}"
