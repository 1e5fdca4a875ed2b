"""The QuantTable on disk: what was written is read, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wanc.artifacts.canonical import canonical
from wanc.compiler.program.quant_table import QuantTable, QuantTableEntry, table_file
from wanc.errors import BundleError

TABLE = QuantTable(
    "denoiser_high",
    "ptq",
    8,
    {
        "blocks.1.ffn": QuantTableEntry("int8", "no keep pattern fits", 0.75, 1.0, 41.25, 0.5, 0.55, 1e-6),
        "blocks.0.ffn": QuantTableEntry("int8", "no keep pattern fits", 0.125, 0.0, 30.5, 2.0**-20, None),
        "proj_out": QuantTableEntry("float", "keep pattern proj_out", 0.125, None),
    },
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    TABLE.write(tmp_path)
    return tmp_path / table_file("denoiser_high")


def test_a_table_survives_a_file(path: Path) -> None:
    assert path.relative_to(path.parents[1]).as_posix() == "quantization/denoiser_high.json"
    assert QuantTable.read(path) == TABLE
    assert path.read_bytes() == canonical(json.loads(path.read_bytes()))


def test_what_is_quantised() -> None:
    assert list(TABLE.quantized) == ["blocks.1.ffn", "blocks.0.ffn"]


def change(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *path, last = keys
        for key in path:
            document = document[key]
        document[last] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (change("schema", value="wanc.quant_table/2.0"), "schema"),
        (change("method", value="guess"), "method"),
        (change("linears", "proj_out", "flops_share", value="much"), "linears.proj_out.flops_share"),
        (change("linears", "proj_out", value=None), "linears.proj_out"),
        (change("samples", value=1.5), "samples"),
        (lambda document: document.pop("linears"), "linears"),
        (lambda document: document["linears"]["proj_out"].pop("reason"), "linears.proj_out.reason"),
    ],
)
def test_other_documents_are_refused(path: Path, spoil: Callable[[dict[str, Any]], None], field: str) -> None:
    document = json.loads(path.read_bytes())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        QuantTable.read(path)
    assert caught.value.message.startswith(f"is no QuantTable: {field}: ")
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null"])
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is no QuantTable: "):
        QuantTable.read(path)
