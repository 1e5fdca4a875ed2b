"""Whether a bundle's golden record is one of its graphs: every input and output of each, and how far is still right."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

from .engine_file import Key
from .errors import BundleError
from .folder import VerifiedFolder
from .golden import EXPECTED, FOLDER, INPUTS, TOLERANCES, tensor_name
from .interface import InputError, Interface
from .safetensors import STORAGE_DTYPES, TensorInfo, read_header
from .strict_json import Fields, parse_object

MOST_TOLERANCE = 0.1
"""Of a relative error: what differs by more is another result, in whichever precision."""
LEAST_TOLERANCE = 1e-9
MOST_TOLERANCES_BYTES = 2**20


def check_golden(graphs: Mapping[Key, Interface], files: Collection[str], folder: VerifiedFolder) -> None:
    """Raises BundleError unless the record has exactly these graphs. Headers are read, values are not."""
    for name in (INPUTS, EXPECTED, TOLERANCES):
        if f"{FOLDER}/{name}" not in files:
            raise BundleError(f"has no {FOLDER}/{name}: nothing to test itself with", where=folder.shown(""))
    tolerances(folder, graphs)
    inputs = {key: [entry.name for entry in interface.inputs] for key, interface in graphs.items()}
    outputs = {key: [entry.name for entry in interface.outputs] for key, interface in graphs.items()}
    given, expected = (
        folder.read(f"{FOLDER}/{name}", partial(_read, wanted=wanted))
        for name, wanted in ((INPUTS, inputs), (EXPECTED, outputs))
    )
    for key, interface in graphs.items():
        try:
            interface.check({name: (_dtype(info), info.shape) for name, info in given[key].items()})
        except InputError as error:
            raise BundleError(f"{'/'.join(key)}: {error.message}", where=folder.shown(f"{FOLDER}/{INPUTS}")) from None
        for output in interface.outputs:
            if (dtype := _dtype(expected[key][output.name])) != output.dtype:
                message = f"{'/'.join(key)}: the output {output.name!r} is {dtype}, and {output.dtype} was expected"
                raise BundleError(message, where=folder.shown(f"{FOLDER}/{EXPECTED}"))


def tolerances(folder: VerifiedFolder, graphs: Collection[Key]) -> dict[Key, float]:
    """The largest relative error that each graph may have. Raises BundleError unless every graph has one."""
    name = f"{FOLDER}/{TOLERANCES}"
    data, where = folder.read(name, _first_bytes), folder.shown(name)
    fields = Fields(parse_object(data, where=where, max_bytes=MOST_TOLERANCES_BYTES).values, where)
    if unknown := sorted(fields.values.keys() - {"/".join(key) for key in graphs}):
        fields.refuse(ascii(unknown[0])[:80], "is no graph of the bundle")
    return {
        key: fields.number("/".join(key), minimum=LEAST_TOLERANCE, maximum=MOST_TOLERANCE) for key in sorted(graphs)
    }


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_TOLERANCES_BYTES + 1)


def _read(path: Path, wanted: Mapping[Key, Iterable[str]]) -> dict[Key, dict[str, TensorInfo]]:
    """A file's tensors by graph and name, which have to be the wanted ones."""
    header = read_header(path)
    places = {tensor_name(*key, name): (key, name) for key, names in wanted.items() for name in names}
    if odd := sorted(places.keys() ^ header.keys()):
        raise BundleError(f"{odd[0]} is {'missing' if odd[0] in places else 'of no graph'}", where=str(path))
    found: dict[Key, dict[str, TensorInfo]] = {key: {} for key in wanted}
    for tensor, (key, name) in places.items():
        found[key][name] = header[tensor]
    return found


def _dtype(info: TensorInfo) -> str:
    """numpy's name, except for bfloat16, which it has not."""
    return "bfloat16" if info.dtype == "BF16" else STORAGE_DTYPES[info.dtype].name
