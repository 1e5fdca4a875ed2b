"""Surveys the models that wanc has recipes for, so that `wanc plan` need not trace them: wanc/compiler/planner/surveys.

To be run after a change of the export or of a pass; `pytest -m slow tests/compiler/planner/test_surveys.py` says when.

example:
  python -m scripts.survey_models
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.fuse import Fuse
from wanc.compiler.planner.survey import SHIPPED, Survey, kind_of, survey_key
from wanc.compiler.planner.survey_stage import survey
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.recipe.schema import FuseSection

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-wan"
SURVEYED = ("wan2.2-t2v-a14b", "wan2.1-t2v-1.3b")


def default_fuse() -> Fuse:
    """What a recipe asks for that says nothing of it."""
    section = FuseSection()
    return Fuse(None, section.skip, section.hoist)


def surveys(model: str, checkpoint: Checkpoint, seen: set[str]) -> Iterator[tuple[str, Survey]]:
    """The surveys of a model's components by the names of their files, but for those whose keys were `seen` before.

    Experts have one configuration, and models share their text encoder and their decoder.
    """
    fuse = default_fuse()
    for name, component in checkpoint.components.items():
        key = survey_key(name, component.config, checkpoint.text_length, fuse.__dict__)
        if key not in seen:
            seen.add(key)
            yield f"{model}.{kind_of(name)}.{key}.json", survey(checkpoint, name, fuse)


def main() -> int:
    """Write all surveys; what was there goes."""
    SHIPPED.mkdir(exist_ok=True)
    for path in SHIPPED.glob("*.json"):
        path.unlink()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {"tiny-wan": TINY}
        for model in SURVEYED:
            checkpoints[model] = Path(folder) / model
            make(MODELS[model], "diffusers", checkpoints[model], seed=0, sparse=True)
        seen: set[str] = set()
        for model, root in checkpoints.items():
            for file, found in surveys(model, open_checkpoint(root), seen):
                found.write(SHIPPED / file)
                print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
