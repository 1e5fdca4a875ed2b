"""The lock: everything that a build depends on, as `recipe.lock.json` in the bundle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wanc.compiler.resolve import Resolved
from wanc.compiler.stages.stage import tool_versions

SCHEMA = "wanc.lock/1.1"


def lock_of(resolved: Resolved, tools: Iterable[str]) -> dict[str, Any]:
    """The lock as JSON. `tools` are the distributions that the stages use.

    Raises UserError where a tool is not installed.
    """
    prompts = resolved.prompts_blob
    inputs = {**resolved.blobs, **({"quantize.calibrate.prompts": prompts} if prompts else {})}
    return {
        "schema": SCHEMA,
        "recipe": resolved.described,
        "inputs": {name: {"size": blob.size, "sha256": blob.digest} for name, blob in sorted(inputs.items())},
        "tools": tool_versions(sorted({"python", *tools})),
    }
