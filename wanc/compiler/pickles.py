"""What `wanc convert` does with each file: the work itself is a confined process's, which alone loads PyTorch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wanc.compiler.stages.worker import call_in_worker
from wanc.errors import UserError

TARGET_SUFFIX = ".safetensors"


def convert_files(files: Sequence[Path], output: Path | None = None, *, progress: bool = False) -> list[Path]:
    """Write the tensors of each pickle to a safetensors file beside it, or of a single one to `output`.

    Returns what was written, in order; each ends up whole or as it was. Raises UserError.
    """
    if output is not None and len(files) > 1:
        raise UserError("-o names one file, and there are several to convert", hint="leave it out, or convert one")
    targets = [output or file.with_suffix(TARGET_SUFFIX) for file in files]
    for file, target in zip(files, targets, strict=True):
        if os.path.realpath(target) == os.path.realpath(file):
            if file.suffix == TARGET_SUFFIX:
                raise UserError("safetensors already, by its name", where=str(file), hint="there is nothing to convert")
            hint = f"name another file, such as {file.with_suffix(TARGET_SUFFIX).name}"
            raise UserError("the output is the pickle itself", where=str(target), hint=hint)
    for file, target in zip(files, targets, strict=True):
        call_in_worker("convert", _convert, Path(os.path.abspath(file)), Path(os.path.abspath(target)), progress)
    return targets


def _convert(file: Path, target: Path, progress: bool) -> None:
    from wanc.compiler.convert import convert

    convert(file, target, progress=progress)
