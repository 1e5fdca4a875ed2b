"""Tables for people of what `inspect` found. Everything in them is in the JSON too, which has more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wanc.runtime.engine_file import ON_TARGET
from wanc.terminal import TextTable, size_text

Document = Mapping[str, Any]
FACTS = ("binding", "per", "shape_of")
"""What a program says of an input besides its type."""
MOST_OPERATORS = 8
MOST_FILES = 40
MOST_VALUES = 6
MOST_ITEMS = 4
MOST_CHARACTERS = 120
_KEY_DIGITS = 16


def tables(document: Document) -> Iterator[TextTable]:
    """The tables of one description."""
    yield TextTable(str(document["kind"]), _facts(document))
    yield from _BY_KIND[document["kind"]](document)


def _facts(document: Document) -> list[tuple[str, str]]:
    """The document's own scalars, in its order."""
    rows = [(name, _scalar(name, value)) for name, value in document.items() if name != "kind" and _is_scalar(value)]
    if "is_verified" in document:
        rows = [row for row in rows if row[0] != "is_verified"]
        rows.append(("verified", "not verified: `wanc verify` does that"))
    return rows


def _bundle(document: Document) -> Iterator[TextTable]:
    yield from _components(document)
    engines = [
        [_graph_of(entry), f"{entry['engine']} on {entry['target']}{_state(entry)}", entry["file"]]
        for entry in document["engines"]
    ]
    yield TextTable("engines", engines, ("graph", "runs with", "file"))
    runtime = document["runtime"]
    yield TextTable("shapes", _records(runtime.get("shapes")))
    for name in ("sampling", "model"):
        yield TextTable(name, _pairs(runtime.get(name)))
    yield TextTable("comparison with the source", _comparison(document["check"]), ("of", ""))
    provenance = document["provenance"]
    parents = [("parent", text) for (text,) in _records(provenance["parents"])]
    yield TextTable("provenance", [("recipe", provenance["recipe_sha256"]), *parents])
    yield TextTable("inputs", _sized(provenance["inputs"]), ("file", "size", "digest"))
    yield TextTable("tools", _pairs(provenance["tools"]))
    roles: dict[str, list[int]] = {}
    for file in document["files"]:
        roles.setdefault(file["role"], []).append(file["size"])
    rows = [(role, str(len(sizes)), size_text(sum(sizes))) for role, sizes in sorted(roles.items())]
    yield TextTable("files", rows, ("role", "files", "size"))


def _comparison(check: Mapping[str, object]) -> list[tuple[str, str]]:
    """How the engines were compared, and each trial of each graph with its errors."""
    graphs = check.get("graphs")
    trials = [
        (str(name), text)
        for name, graph in (graphs.items() if isinstance(graphs, dict) else ())
        for (text,) in _records(graph.get("trials") if isinstance(graph, dict) else None)
    ]
    return [*((name, text) for name, text in _pairs(check) if name != "graphs"), *trials]


def _program(document: Document) -> Iterator[TextTable]:
    yield from _components(document)
    yield TextTable("model", _pairs(document["model"]))


def _graph(document: Document) -> Iterator[TextTable]:
    yield TextTable("operator sets", _pairs(document["opsets"]))
    yield from _interface({"": document})
    yield TextTable("operators", _operators({"": document}), ("graph", "nodes", "most frequent"))
    yield from _tensors({"weights": document["weights"], "constants": document["constants"]})
    found = {True: "found", False: "missing", None: "outside of this folder"}
    external = [(entry["file"], size_text(entry["bytes"]), found[entry["found"]]) for entry in document["external"]]
    yield TextTable("weights in other files", external, ("file", "size", ""))


def _safetensors(document: Document) -> Iterator[TextTable]:
    yield from _tensors({"tensors": document["weights"]})


def _checkpoint(document: Document) -> Iterator[TextTable]:
    yield from _tensors({name: part["weights"] for name, part in document["components"].items()})
    for name, part in document["components"].items():
        yield TextTable(f"{name}, from {part['folder']}" if part["folder"] else name, _pairs(part["config"]))
    if document["doubts"]:
        doubts = [(doubt["name"], doubt["message"], doubt["where"]) for doubt in document["doubts"]]
        yield TextTable("what a recipe has to allow", doubts, ("name", "", "file"))


def _action(document: Document) -> Iterator[TextTable]:
    made = {
        name: entry["key"] and f"made by {entry['stage']} {entry['key'][:_KEY_DIGITS]}"
        for name, entry in document["inputs"].items()
    }
    inputs = [(name, str(entry["digest"]), made[name] or "") for name, entry in document["inputs"].items()]
    yield TextTable("inputs", inputs, ("input", "digest", ""))
    yield TextTable("parameters", _pairs(document["parameters"]))
    yield TextTable("tools", _pairs(document["tools"]))
    yield TextTable("cost", _pairs(document["meta"]))
    yield TextTable("kept for", [(name,) for name in document["kept_by"]])
    files = [(file["path"], size_text(file["size"]), "" if file["found"] else "missing") for file in document["files"]]
    yield TextTable("files", _cut(files, MOST_FILES), ("file", "size", ""))
    if document["program"]:
        yield from _program(document["program"])


def _blob(document: Document) -> Iterator[TextTable]:
    rows = [(entry["path"], entry["stage"], entry["key"][:_KEY_DIGITS]) for entry in document["named_by"]]
    yield TextTable("named by", rows, ("as", "stage", "key"))
    if document["content"]:
        yield from tables(document["content"])


_BY_KIND: Mapping[str, Callable[[Document], Iterator[TextTable]]] = {
    "bundle": _bundle,
    "program": _program,
    "graph": _graph,
    "tensors": _safetensors,
    "checkpoint": _checkpoint,
    "action": _action,
    "blob": _blob,
}


def _components(program: Document) -> Iterator[TextTable]:
    components = program["components"]
    graphs = {f"{name}/{graph}": entry for name, part in components.items() for graph, entry in part["graphs"].items()}
    tallies = {name: part["weights"] for name, part in components.items()}
    if program["embedding"]:
        tallies["embedding table"] = program["embedding"]["weights"]
    yield from _tensors(tallies)
    yield TextTable("operators", _operators(graphs), ("graph", "nodes", "most frequent"))
    yield TextTable("kernels", _kernels(graphs), ("graph", "kernels", "fused", "most frequent"))
    yield from _interface(graphs)


def _interface(graphs: Document) -> Iterator[TextTable]:
    inputs = [row for graph, entry in graphs.items() for row in _values(graph, entry["inputs"], *FACTS)]
    outputs = [row for graph, entry in graphs.items() for row in _values(graph, entry["outputs"], "state")]
    yield TextTable(
        "inputs of graphs", inputs, ("graph", "input", "dtype", "shape", "known per", "for each", "shape of")
    )
    yield TextTable("outputs of graphs", outputs, ("graph", "output", "dtype", "shape", "carried to"))


def _values(graph: str, values: list[Document], *facts: str) -> list[Sequence[str]]:
    rows = [
        (graph, value["name"], value["dtype"], _shape(value["shape"]), *(str(value.get(fact) or "") for fact in facts))
        for value in values
    ]
    # Caches come by the dozen.
    return _cut(rows, MOST_VALUES, column=1)


def _operators(graphs: Document) -> list[tuple[str, str, str]]:
    return [
        (graph, f"{entry['nodes']:,}", _most_frequent(entry["operators"]))
        for graph, entry in graphs.items()
        if entry["operators"] is not None
    ]


def _kernels(graphs: Document) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for graph, entry in graphs.items():
        if entry["kernels"] is not None:
            counts = {f"{name} {dtype}": n for name, dtypes in entry["kernels"].items() for dtype, n in dtypes.items()}
            ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
            fused = _most_frequent(entry["fused"])
            rows.append((graph, f"{sum(counts.values()):,}", fused, _most_frequent(ordered)))
    return rows


def _most_frequent(operators: Mapping[str, int]) -> str:
    shown = [f"{name} {count}" for name, count in list(operators.items())[:MOST_OPERATORS]]
    rest = len(operators) - len(shown)
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _tensors(tallies: Document) -> Iterator[TextTable]:
    rows = [
        (owner, dtype, f"{entry['count']:,}", f"{entry['parameters']:,}", size_text(entry["bytes"]))
        for owner, tally in tallies.items()
        for dtype, entry in tally["dtypes"].items()
    ]
    yield TextTable("weights", rows, ("of", "dtype", "tensors", "parameters", "size"))


def _shape(shape: list[Any] | None) -> str:
    if shape is None:
        return "any"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _pairs(values: object) -> list[tuple[str, str]]:
    """The fields of an object; what is deeper is JSON in one line."""
    if not isinstance(values, dict):
        return []
    return [(str(name), _scalar(str(name), value)) for name, value in values.items()]


def _graph_of(entry: Mapping[str, Any]) -> str:
    """Which graph an engine file runs, and which segment of it where that is not the first."""
    segment = entry.get("segment")
    return f"{entry['component']}/{entry['graph']}" + (f", segment {segment}" if segment else "")


def _state(entry: Mapping[str, Any]) -> str:
    """What is to be said of an engine that is not there yet."""
    return ", to be built there" if entry.get("built") == ON_TARGET else ""


def _records(objects: object) -> list[tuple[str, ...]]:
    if not isinstance(objects, list):
        return []
    return [("  ".join(f"{name} {value}" for name, value in _pairs(entry)),) for entry in objects]


def _sized(files: object) -> list[Sequence[str]]:
    if not isinstance(files, dict):
        return []
    rows = [
        (str(name), size_text(entry["size"]), str(entry.get("sha256")))
        for name, entry in files.items()
        if isinstance(entry, dict) and isinstance(entry.get("size"), int)
    ]
    return _cut(rows, MOST_FILES)


def _cut(rows: Sequence[Sequence[str]], most: int, column: int = 0) -> list[Sequence[str]]:
    """The rows, or, if there are more, the first of them and in `column` the number of the others."""
    rest = len(rows) - most
    if rest <= 1:
        return [*rows]
    last = rows[most - 1]
    return [*rows[:most], [*last[:column], f"{rest} others", *[""] * (len(last) - column - 1)]]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _scalar(name: str, value: object) -> str:
    """A value in one line: of a long list its beginning, of a large object the names."""
    if isinstance(value, int) and name in ("size", "bytes", "peak_rss_bytes"):
        return size_text(value)
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        return f"{json.dumps(value[:MOST_ITEMS], ensure_ascii=False)[:-1]}, … {len(value)} in all]"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"with {', '.join(value)}" if isinstance(value, dict) and len(text) > MOST_CHARACTERS else text
