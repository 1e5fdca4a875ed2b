"""`wanc build --on-target`: the engines of a sealed bundle, built where their GPU is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from wanc.errors import UserError
from wanc.runtime.engine_file import BUILD_IT
from wanc.runtime.streams import print_result
from wanc.runtime.voice import say, shows_progress


def build_child(bundle: Path, output: Path, *, replace: bool, as_json: bool, others: Mapping[str, object]) -> None:
    """Build a bundle's child and print what it is. `others` are options that say nothing here: none may be given."""
    if given := [flag for flag, value in others.items() if value]:
        raise UserError(
            f"{' and '.join(given)} would have no effect with --on-target",
            hint="the bundle says what is built; another recipe makes another bundle",
        )
    from wanc.compiler.on_target.child import build_on_target
    from wanc.runtime.progress import Bars

    with Bars(enabled=shows_progress(as_json=as_json)) as bars:
        result = build_on_target(bundle, output, replace=replace, on_progress=bars)
    if as_json:
        print_result(json.dumps(result.as_json()))
        return
    print_result(f"{result.bundle}  {result.id}")
    if result.waiting:
        say(f"{result.waiting} engines are for other GPUs: there, {BUILD_IT} {result.bundle}")
