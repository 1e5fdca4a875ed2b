"""What a stage is, and what its result depends on.

A stage is a frozen dataclass whose fields are its parameters. Its action key is the digest of one document holding
everything that can change the result: the stage's own code, its parameters, its inputs' digests, the versions of the
tools that it uses, and the platform with its processor, by which those choose their kernels. Nothing else may influence
`run`: its process has no variables that could.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wanc.artifacts.canonical import digest_of
from wanc.compiler.stages.code_version import code_version
from wanc.compiler.stages.processor import processor
from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.same_module import installed

KEY_SCHEMA = 1
SCRATCH = "scratch"
EXTRAS: Mapping[str, str] = {"onnxruntime": "cpu"}
"""Distributions that are in an extra of wanc of their own, because another one is of the same module."""
Files = Mapping[str, Path]


@dataclass(frozen=True)
class Tree:
    """A set of files that a stage reads: their digests, and where they are when somebody asks.

    `locate` raises UserError where they are no longer what the digests say.
    """

    digests: Mapping[str, str]
    locate: Callable[[], Files]

    @property
    def digest(self) -> str:
        """The digest of names and contents; where the files lie does not enter."""
        return digest_of(dict(self.digests))

    def joined(self, other: Tree) -> Tree:
        """The files of both."""
        return Tree({**self.digests, **other.digests}, lambda: {**self.locate(), **other.locate()})

    def only(self, chosen: Callable[[str], bool]) -> Tree:
        """The files whose names are chosen."""
        digests = {name: digest for name, digest in self.digests.items() if chosen(name)}
        return Tree(digests, lambda: {name: path for name, path in self.locate().items() if name in digests})


@dataclass(frozen=True)
class Stage(ABC):
    """A step of the compiler. Subclasses add their parameters as fields."""

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]] = ()
    resumes: ClassVar[bool] = False
    """Whether a stage that was stopped goes on where it was: it then has a folder for that (`scratch_of`)."""

    @property
    def label(self) -> str:
        """What it is called for people: its name, with the component that it works on where that is one."""
        component = getattr(self, "component", None)
        return f"{self.name} {component}" if component else self.name

    def key_document(self, inputs: Mapping[str, Tree]) -> dict[str, Any]:
        """Everything that the result depends on, as JSON."""
        return {
            "schema": KEY_SCHEMA,
            "stage": self.name,
            "code": code_version(type(self).__module__),
            # As it will be read back: a tuple would be told from the list that was stored.
            "parameters": json.loads(json.dumps(dataclasses.asdict(self))),
            "inputs": {name: tree.digest for name, tree in inputs.items()},
            "tools": tool_versions(self.tools),
            "platform": f"{platform.system()}-{platform.machine()}",
            "libc": " ".join(platform.libc_ver()),
            "processor": processor(),
        }

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """About how many bytes lie in the store at once that `run` writes, its result included; 0 is few, or unknown.

        Less is better than more: a build that would fit is not to be refused.
        """
        del inputs
        return 0

    @abstractmethod
    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        """Read the inputs, write the result below `out`, with a progress bar if asked. Runs in a process of its own.

        Raises UserError for faults in what the user gave.
        """


def scratch_of(out: Path) -> Path:
    """The folder of a stage that resumes: what lies there is there again when the same stage runs anew.

    Only by `artifacts.kept` does it know what is still what it was.
    """
    return out.parent / SCRATCH


def tool_version(distribution: str, extra: str = "build") -> str:
    """The installed version of a Python distribution, which an `extra` of wanc has, or of Python itself.

    Raises UserError where it is missing, and nothing serves in its place.
    """
    return _installed(distribution, extra)[1]


def tool_versions(distributions: Iterable[str], extra: str = "build") -> dict[str, str]:
    """The version of each, by the name of what is installed: two of one module may calculate differently.

    Raises as `tool_version`.
    """
    return dict(_installed(distribution, extra) for distribution in distributions)


def _installed(distribution: str, extra: str) -> tuple[str, str]:
    if distribution == "python":
        return distribution, platform.python_version()
    if (found := installed(distribution)) is None:
        raise UserError(
            f"building needs the package {distribution}, which is not installed",
            hint=f"pip install 'wanc[{EXTRAS.get(distribution, extra)}]'",
            exit_code=EXIT_UNAVAILABLE,
        )
    return found
