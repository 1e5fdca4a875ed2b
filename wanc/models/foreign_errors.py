"""What foreign code raises, as the cause of our own error: its words, and the line that it came from."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

LINES_SHOWN = 4
"""torch's messages go on for pages, and begin with what matters."""
DEEPEST = 8
LIBRARIES = ("torch", "onnxscript", "onnx_ir", "wanc", "importlib")
"""Packages of which no line tells an author what is wrong with a model."""
ONLY_AROUND = ("torch.onnx",)
"""Where errors are wrapped in others that say how to report them."""
_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def as_cause(error: BaseException) -> RuntimeError:
    """An error and its causes as plain texts, one `__cause__` behind the other, which can leave a process."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and len(chain) < DEEPEST:
        chain.append(cause)
    while len(chain) > 1 and type(chain[0]).__module__.startswith(ONLY_AROUND):
        chain.pop(0)
    told: RuntimeError | None = None
    for entry in reversed(chain):
        text = RuntimeError(f"{_words(entry)}{_place(entry)}")
        text.__cause__ = told
        told = text
    assert told is not None
    return told


def _words(error: BaseException) -> str:
    """The first lines of what it says, behind its type where that says more than the library's name would."""
    text = _ESCAPES.sub("", "\n".join(str(error).strip().splitlines()[:LINES_SHOWN]))
    kind = type(error)
    if kind.__module__.partition(".")[0] in LIBRARIES:
        return text or kind.__name__
    return f"{kind.__name__}: {text}" if text else kind.__name__


def _place(error: BaseException) -> str:
    """The innermost line of the foreign code, in brackets; nothing where none of it ran.

    An exporter works on a graph, long after the code has run; but each node remembers its line.
    """
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        trace = getattr(frame.f_locals.get("node"), "stack_trace", None)
        lines += [(file, int(line)) for file, line in _LINE.findall(trace or "")]
    own = [(file, line) for file, line in lines if not file.startswith(("<", *_library_folders()))]
    return f" ({Path(own[-1][0]).name}:{own[-1][1]})" if own else ""


def _library_folders() -> list[str]:
    files = [getattr(sys.modules.get(name), "__file__", None) for name in LIBRARIES]
    return [f"{Path(file).parent}{os.sep}" for file in files if file]
