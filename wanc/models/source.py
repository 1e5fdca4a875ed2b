"""What a recipe's `model` is read from: the files of a checkpoint, of an ONNX model, or of a Python package.

Nothing is executed and no weight is read; torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wanc.models.wan.checkpoint import open_checkpoint
from wanc.recipe.model import ModelSection


@dataclass(frozen=True)
class ModelSource:
    """The files of a model, by the names under which stages and weights refer to them.

    A Wan checkpoint also says which components it has, where its tokenizer is, and where its experts change over.
    """

    files: Mapping[str, Path]
    components: tuple[str, ...] = ()
    tokenizer: Path | None = None
    boundary: float | None = None


def open_source(model: ModelSection, folder: Path) -> ModelSource:
    """The source of a recipe's model; `folder` is the recipe's.

    Raises UserError where it is missing, damaged, or not what it was taken for, RecipeError where the recipe says
    something else of it.
    """
    if model.source is not None:
        return _checkpoint(model.source, model.components)
    if model.onnx is not None:
        from wanc.models.onnx_file import open_onnx
        from wanc.models.onnx_keys import check_keys

        file = open_onnx(model.onnx)
        check_keys(file.inputs, model.example or {}, model.values or {})
        return ModelSource(file.files)
    assert model.torch is not None, "the recipe's schema lets no other kind pass"
    from wanc.models.torch_source import find_files

    return ModelSource(find_files(model.torch, folder, model.files or ()))


def _checkpoint(root: Path, components: tuple[str, ...] | None) -> ModelSource:
    checkpoint = open_checkpoint(root, components)
    return ModelSource(
        files={name: checkpoint.root / name for name in checkpoint.files},
        components=tuple(checkpoint.components),
        tokenizer=checkpoint.root / checkpoint.tokenizer if checkpoint.tokenizer else None,
        boundary=checkpoint.boundary,
    )
