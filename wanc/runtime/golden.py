"""Where golden inputs and outputs lie in a bundle, and what they are called there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

FOLDER, INPUTS, EXPECTED, TOLERANCES = "golden", "inputs.safetensors", "expected.safetensors", "tolerances.json"

Array = np.ndarray[Any, Any]


def tensor_name(component: str, graph: str, name: str) -> str:
    """`<component>/<graph>/<input or output>`: an ONNX name may hold anything, a safetensors file's name may not.

    Other characters than letters, digits and `._/` become `-` and two hexadecimal digits for each of their bytes.
    """
    escaped = re.sub(r"[^A-Za-z0-9._/]", lambda found: "".join(f"-{byte:02x}" for byte in found[0].encode()), name)
    return f"{component}/{graph}/{escaped}"


def named(tensors: Mapping[str, Array], component: str, graph: str) -> dict[str, Array]:
    """The tensors of one graph, by the names that its inputs and outputs have in it."""
    prefix = tensor_name(component, graph, "")
    return {_unescaped(name.removeprefix(prefix)): array for name, array in tensors.items() if name.startswith(prefix)}


def _unescaped(name: str) -> str:
    return re.sub(r"(?:-[0-9a-f]{2})+", lambda found: bytes.fromhex(found[0].replace("-", "")).decode(), name)
