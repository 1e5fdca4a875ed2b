"""Walking the schema: which keys stand where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from wanc.recipe.schema import RecipeFile
from wanc.recipe.section import Section
from wanc.recipe.tree import KeyPath


def fields_at(path: KeyPath) -> Mapping[str, FieldInfo]:
    """The keys that the mapping at `path` can have; none where `path` leads to no mapping."""
    section: type[Section] = RecipeFile
    # An item of a list has the keys that the list's items have in common: its index adds nothing.
    names = [key for key in path if isinstance(key, str) and not key.isdecimal()]
    while names:
        field = section.model_fields.get(names.pop(0))
        inner = _section_in(field) if field else None
        if field is None or inner is None:
            return {}
        if _is_mapping(field) and not names:
            return {}  # its names are the recipe's own
        names = names[1:] if _is_mapping(field) else names
        section = inner
    return section.model_fields


def section_at(path: KeyPath) -> type[Section] | None:
    """The section that stands at `path`, in a list or by itself."""
    field = _field_at(path)
    return _section_in(field) if field is not None else None


def type_at(path: KeyPath) -> Any:
    """What the schema makes of the value at `path`, an item of a list or of a mapping with free keys included."""
    field = _field_at(path)
    if field is None or not path:
        return None
    if fields_at(path[:-1]) and isinstance(path[-1], str):
        return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation  # pyright: ignore
    inner = next((choice for choice in _choices(field.annotation) if get_origin(choice) in (tuple, dict)), None)
    return get_args(inner)[-1 if get_origin(inner) is dict else 0] if inner else None


def _field_at(path: KeyPath) -> FieldInfo | None:
    """The field of the last key with a name of the schema's."""
    while path and (isinstance(path[-1], int) or not fields_at(path[:-1])):
        path = path[:-1]
    return fields_at(path[:-1]).get(str(path[-1])) if path else None


def has_free_keys(path: KeyPath) -> bool:
    """Whether the mapping at `path` has names for keys that the recipe chooses, such as those of inputs."""
    field = fields_at(path[:-1]).get(str(path[-1])) if path else None
    return field is not None and _is_mapping(field)


def description(path: KeyPath) -> str | None:
    """What the key at `path` means, or for an item of a list, or of a mapping with free keys, the key of that."""
    field = _field_at(path)
    if field is None:
        return None
    section = _section_in(field)
    return field.description or (section.__doc__ if section else None)


def all_paths() -> Iterator[KeyPath]:
    """The path of every key, without indices of lists."""
    return _paths_under((), RecipeFile)


def _paths_under(path: KeyPath, section: type[Section]) -> Iterator[KeyPath]:
    for name, field in section.model_fields.items():
        yield (*path, name)
        if (inner := _section_in(field)) and not _is_mapping(field):
            yield from _paths_under((*path, name), inner)


def _choices(annotation: object) -> Iterator[object]:
    """The annotation itself, and those that it is a choice or a refinement of."""
    yield annotation
    if get_origin(annotation) in (UnionType, Union, Annotated):
        for choice in get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]:
            yield from _choices(choice)


def _is_mapping(field: FieldInfo) -> bool:
    """Whether it is one with names of the recipe's own."""
    return any(get_origin(choice) is dict for choice in _choices(field.annotation))


def _section_in(field: FieldInfo) -> type[Section] | None:
    return next(_sections_of(field.annotation), None)


def _sections_of(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_of(argument)
