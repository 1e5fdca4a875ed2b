"""What a checkpoint's model card says to reports: README.md at its root, whose YAML front matter may name a detector.

A card is a stranger's file. It is opened beneath the checkpoint without following links, read up to a limit as strict
YAML, and believed in one thing, a name out of `detectors.registry`. Whatever is wrong with it is told, and no failure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wanc.errors import UserError
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import Node, TextSource
from wanc.report.detectors.registry import DETECTORS, Detector
from wanc.runtime.safe_read import read_whole

CARD = "README.md"
MAX_BYTES = 2**20
FENCE = "---"
BENEATH = "."  # what errors call the folder: the card's own name tells enough
KEYS = ("wanc", "detector")


@dataclass(frozen=True)
class ModelCard:
    """The detector that a card names; where it names one in vain, or cannot be read, `notes` say why."""

    detector: Detector | None = None
    notes: tuple[str, ...] = ()


def read_card(folder: Path | None) -> ModelCard:
    """The card of the checkpoint in a folder; None is the folder of a model that is no checkpoint."""
    if folder is None or not os.path.lexists(folder / CARD):
        return ModelCard()
    try:
        named = _named(_front_matter(_text(folder)))
    except UserError as error:
        return ModelCard(notes=(f"The model card is not read: {str(error).removeprefix(f'{BENEATH}/')}.",))
    if named is None:
        return ModelCard()
    if isinstance(named.value, str) and (detector := DETECTORS.get(named.value)):
        return ModelCard(detector)
    told = f"the detector {ascii(named.value)[:80]}" if isinstance(named.value, str) else "no text as detector"
    return ModelCard(notes=(f"The model card names {told}; wanc knows {', '.join(DETECTORS)} ({named.at}).",))


def _text(folder: Path) -> str:
    """Raises UserError where the card is no file of its own, too large, or no text."""
    if (folder / CARD).is_symlink():
        raise UserError("is a link, and none is followed", where=CARD)
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise UserError("cannot be read", where=CARD) from None
    try:
        return read_whole(directory, CARD, max_bytes=MAX_BYTES, where=BENEATH).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=CARD) from None
    finally:
        os.close(directory)


def _front_matter(text: str) -> Node | None:
    """What stands between two lines `---` at the very beginning; None where nothing does. Raises RecipeError."""
    first, *lines = (line.rstrip() for line in text.split("\n"))
    if first != FENCE or FENCE not in lines:
        return None
    matter = lines[: lines.index(FENCE)]
    return parse("\n".join(["", *matter]), TextSource(CARD, Path()))  # an empty line: the fence is the first


def _named(root: Node | None) -> Node | None:
    """What stands at `wanc.detector`; all else that a card says is somebody else's."""
    for key in KEYS:
        root = root.value.get(key) if root is not None and isinstance(root.value, dict) else None
    return root
