"""The recipe's format as JSON Schema, for completion and checks in editors."""

from __future__ import annotations

from typing import Any, cast

from wanc.recipe.model import KINDS
from wanc.recipe.schema import RecipeFile

JsonSchema = dict[str, Any]
_IS_VIDEO: JsonSchema = {"properties": {"model": {"required": ["source"]}}}


def json_schema() -> JsonSchema:
    """JSON Schema (draft 2020-12) of a recipe's file; `recipes/recipe.schema.json` is kept equal to it.

    A recipe that extends another one may leave out what its base has, so keys are required only of one that does not.
    """
    exported = RecipeFile.model_json_schema()
    definitions = cast(JsonSchema, exported["$defs"])
    requirements = _lift_required(exported, definitions)
    one_of_the_kinds: JsonSchema = {"oneOf": [{"required": [kind]} for kind in KINDS]}
    requirements["properties"] |= {"model": one_of_the_kinds}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:wanc:recipe:1",
        **exported,
        "title": "wanc recipe",
        "if": {"not": {"required": ["extends"]}},
        "then": {**requirements, "if": _IS_VIDEO, "then": {"required": ["shapes", "sampling"]}},
    }


def _lift_required(section: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    """Takes `required` out of a mapping and the mappings in it, and returns it as a schema of its own.

    Items of lists keep theirs, because an extending recipe replaces a list as a whole.
    """
    inner: JsonSchema = {}
    for name, field in cast(dict[str, JsonSchema], section["properties"]).items():
        if reference := next((choice["$ref"] for choice in field.get("anyOf", [field]) if "$ref" in choice), None):
            lifted = _lift_required(definitions[reference.removeprefix("#/$defs/")], definitions)
            inner |= {name: lifted} if lifted else {}
    required = section.pop("required", [])
    return ({"required": required} if required else {}) | ({"properties": inner} if inner else {})
