"""What a recipe's `model` is read from: the files of a checkpoint, of an ONNX model, or of a Python package.

Nothing is executed and no weight is read; torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wanc.errors import RecipeError
from wanc.models.wan.causal_marks import CausalMark, Marks
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.models.wan.facts import WanFacts, facts_of
from wanc.recipe.model import ModelSection

# What a text-to-video bundle cannot do without. The low-noise expert is a matter of the model.
NEEDED = ("text_encoder", "denoiser_high", "vae_decoder")


@dataclass(frozen=True)
class ModelSource:
    """The files of a model, by the names under which stages and weights refer to them.

    A Wan checkpoint also says which components it has, where its tokenizer is, and where its experts change over;
    `facts` are there where it has all that a video takes. `zeros` are the weights that may be nothing but zeros, and
    `causal` is what the checkpoint says of making videos chunk by chunk.
    """

    files: Mapping[str, Path]
    components: tuple[str, ...] = ()
    tokenizer: Path | None = None
    boundary: float | None = None
    facts: WanFacts | None = None
    zeros: tuple[str, ...] = ()
    causal: Marks = field(default_factory=dict[str, CausalMark])


def open_source(model: ModelSection, folder: Path) -> ModelSource:
    """The source of a recipe's model; `folder` is the recipe's.

    Raises UserError where it is missing, damaged, or not what it was taken for, RecipeError where the recipe says
    something else of it.
    """
    if model.source is not None:
        return _checkpoint(model.source, model)
    if model.onnx is not None:
        from wanc.models.onnx_file import open_onnx
        from wanc.models.onnx_keys import check_keys

        file = open_onnx(model.onnx)
        check_keys(file.inputs, model.example or {}, model.values or {})
        return ModelSource(file.files)
    assert model.torch is not None, "the recipe's schema lets no other kind pass"
    from wanc.models.torch_source import find_files

    return ModelSource(find_files(model.torch, folder, model.files or ()))


def _checkpoint(root: Path, model: ModelSection) -> ModelSource:
    allowed = model.allow or ()
    checkpoint = open_checkpoint(
        root, model.components, allowed, family=model.family or "wan", companion=model.companion
    )
    said = {doubt.name for doubt in checkpoint.doubts} | ({"family"} if model.family == "wan-causal" else set())
    tensors = {name for component in checkpoint.components.values() for name in component.weights}
    if unused := [name for name in allowed if name not in said | tensors]:
        raise RecipeError(
            f"model.allow names {unused[0]}, which is neither a key that wanc has doubts about nor a tensor",
            key=f"model.allow.{allowed.index(unused[0])}",
            hint="remove it, or look with wanc inspect what the weights are called",
        )
    return ModelSource(
        files={name: checkpoint.path(name) for name in checkpoint.files},
        components=tuple(checkpoint.components),
        tokenizer=checkpoint.path(checkpoint.tokenizer) if checkpoint.tokenizer else None,
        boundary=checkpoint.boundary,
        causal=checkpoint.causal,
        facts=facts_of(checkpoint) if {*NEEDED} <= checkpoint.components.keys() else None,
        zeros=tuple(name for name in allowed if name in tensors),
    )
