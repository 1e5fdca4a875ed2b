"""Keys that the schema does not have, found in each layer of a recipe before the layers are merged.

Merging takes nulls and what lies below them away: a misspelt key with nothing behind it, or in a section that a higher
layer replaces, would reach no check of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from wanc.recipe.fields import fields_at, has_free_keys
from wanc.recipe.layers import Assignment
from wanc.recipe.phrases import dotted, unknown_key
from wanc.recipe.problems import RecipeProblem
from wanc.recipe.tree import KeyPath, Node


def faulty_keys(layer: Node, below: Node, path: KeyPath = ()) -> Iterator[RecipeProblem]:
    """What is wrong with the keys of `layer`, which is laid over `below` and whose place in the recipe is `path`.

    Names that a recipe is free to choose have no default to go back to: a null there has to take something away.
    """
    if isinstance(layer.value, list):
        for index, item in enumerate(layer.value):
            yield from faulty_keys(item, _nothing_like(item), (*path, index))
    if not isinstance(layer.value, dict):
        return
    known, is_free = fields_at(path), has_free_keys(path)
    lower = below.value if isinstance(below.value, dict) else {}
    for key, node in layer.value.items():
        place = (*path, key)
        under = lower.get(key) or _nothing_like(node)
        # --set names an item of a list by its index.
        if known and key not in known and not key.isdecimal():
            yield unknown_key(place, node.key_at)
        elif is_free and node.value is None and under.value is None:
            hint = "give it a value, or remove the line: null takes away what a recipe that is extended has"
            yield RecipeProblem(f"{dotted(place)} has no value", node.key_at, hint)
        elif place != ("matrix",):
            yield from faulty_keys(node, under, place)


def faulty_assignment(assignment: Assignment, below: Node) -> Iterator[RecipeProblem]:
    """The same of one value that a variant or `--set` gives."""
    node = assignment.node
    for key in reversed(assignment.path):
        node = Node({str(key): node}, node.at, node.key_at, node.folder)
    return faulty_keys(node, below)


def _nothing_like(node: Node) -> Node:
    return Node(None, node.at, node.key_at, node.folder)
