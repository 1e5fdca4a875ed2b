"""Whatever lies in a checkpoint's files, opening it succeeds or says what is wrong: no other exception, and soon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.errors import UserError, render
from wanc.models.wan.checkpoint import open_checkpoint

from ..cost import limited

STEM = "diffusion_pytorch_model"
DOCUMENTS = {
    "diffusers": [
        "model_index.json",
        "transformer/config.json",
        "text_encoder/config.json",
        "vae/config.json",
        "tokenizer/tokenizer_config.json",
        f"transformer/{STEM}.safetensors.index.json",
    ],
    "original": ["high_noise_model/config.json", f"low_noise_model/{STEM}.safetensors.index.json"],
}
WEIGHTS = {
    "diffusers": ["text_encoder/model.safetensors", f"vae/{STEM}.safetensors"],
    "original": ["Wan2.1_VAE.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors"],
}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["t2v", "40", 0, -1, 1, 2, 3, 16, 2**31, [1, 2, 2], [-1, -1]]),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=8), children, max_size=5),
    max_leaves=12,
)
examples = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    for layout in ("diffusers", "original"):
        make(MODELS["tiny"].with_layers(1), layout, folder / layout, seed=1)
    return {layout: folder / layout for layout in DOCUMENTS}


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """The file holds other bytes for a while."""
    original = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(original)


def open_or_refuse(root: Path) -> None:
    with limited():
        try:
            open_checkpoint(root)
        except UserError as error:
            assert error.where is not None and error.where.startswith(str(root))
            assert len(render(error)) < 2000


def places(kind: dict[str, list[str]]) -> st.SearchStrategy[tuple[str, str]]:
    return st.sampled_from([(layout, name) for layout, names in kind.items() for name in names])


@examples
@given(place=places(DOCUMENTS), data=st.data())
def test_a_document_with_one_value_changed(roots: dict[str, Path], place: tuple[str, str], data: st.DataObject) -> None:
    root, name = roots[place[0]], place[1]
    document: dict[str, Any] = json.loads((root / name).read_text())
    key = data.draw(st.sampled_from(sorted(document)), "key")
    if isinstance(document[key], dict) and data.draw(st.booleans(), "inside"):
        inner = data.draw(st.sampled_from(sorted(document[key])), "inner key")
        document[key][inner] = data.draw(json_values, "value")
    else:
        document[key] = data.draw(json_values, "value")
    with replaced(root / name, json.dumps(document).encode("utf-8", "surrogatepass")):
        open_or_refuse(root)


@examples
@given(place=places(DOCUMENTS), value=json_values | st.binary(max_size=60))
def test_a_document_of_something_else(roots: dict[str, Path], place: tuple[str, str], value: Any) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")
    with replaced(roots[place[0]] / place[1], data):
        open_or_refuse(roots[place[0]])


@examples
@given(place=places(WEIGHTS), data=st.data())
def test_a_header_with_one_value_changed(roots: dict[str, Path], place: tuple[str, str], data: st.DataObject) -> None:
    path = roots[place[0]] / place[1]
    stored = path.read_bytes()
    length = int.from_bytes(stored[:8], "little")
    header: dict[str, Any] = json.loads(stored[8 : 8 + length])
    tensor = data.draw(st.sampled_from(sorted(header)), "tensor")
    if data.draw(st.booleans(), "rename"):
        header[data.draw(st.text(max_size=20), "name")] = header.pop(tensor)
    else:
        header[tensor][data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]), "field")] = data.draw(json_values)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    with replaced(path, len(text).to_bytes(8, "little") + text + stored[8 + length :]):
        open_or_refuse(roots[place[0]])


@examples
@given(place=places(WEIGHTS), at=st.integers(0, 4000), byte=st.integers(0, 255), kept=st.none() | st.integers(0, 4000))
def test_a_weights_file_with_a_byte_changed_or_cut_off(
    roots: dict[str, Path], place: tuple[str, str], at: int, byte: int, kept: int | None
) -> None:
    path = roots[place[0]] / place[1]
    stored = bytearray(path.read_bytes())
    stored[at] = byte
    with replaced(path, bytes(stored[:kept])):
        open_or_refuse(roots[place[0]])


@pytest.mark.parametrize("layout", DOCUMENTS)
def test_an_undisturbed_checkpoint_opens(roots: dict[str, Path], layout: str) -> None:
    """Otherwise every example above would be refused for a reason of its own."""
    assert open_checkpoint(roots[layout]).layout == layout
