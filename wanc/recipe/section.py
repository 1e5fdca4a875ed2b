"""What all parts of a recipe's format share: the base class, and the forms that names can have."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

# Names become parts of file and directory names on every system, so they are kept to what all systems take.
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
PROFILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
# PEP 440's canonical form, without epochs and local parts, whose `!` and `+` no bundle's name can hold.
VERSION = (
    r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*((a|b|rc)(0|[1-9][0-9]*))?"
    r"(\.post(0|[1-9][0-9]*))?(\.dev(0|[1-9][0-9]*))?$"
)
FACTORY = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
DEVICE_KIND = r"^[a-z0-9][a-z0-9-]*$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
MODULE_GLOB = r"^[A-Za-z0-9_./*?!\[\]-]+$"
PATTERNS = {
    FILE_NAME: "letters, digits, '_' and '-' with single dots between them, beginning with a letter or a digit",
    PROFILE_NAME: "letters, digits, '_' and '-', beginning with a letter or a digit",
    VERSION: "a version of PEP 440, such as 1.4.0 or 1.4.0rc1",
    FACTORY: "a module and a function in it, such as my_package.models:build_encoder",
    DEVICE_KIND: "small letters, digits and '-', beginning with a letter or a digit",
    IDENTIFIER: "letters, digits and '_', beginning with no digit",
    MODULE_GLOB: "a glob over module paths, such as denoiser_high/blocks.0.* or blocks.*.ffn",
}


class Section(BaseModel):
    """What all parts of a recipe share."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
