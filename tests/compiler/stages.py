"""Stages for tests. They have a module of their own because the worker's process imports it by name."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.errors import CheckpointError
from wanc.runtime.progress import ProgressBar


@dataclass(frozen=True)
class Plain(Stage):
    """A stage whose key needs no source of wanc's, and that notes each of its runs in a file."""

    name: ClassVar[str] = "plain"

    text: str
    log: str

    def key_document(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"stage": self.name, "text": self.text, "inputs": {name: tree.digest for name, tree in inputs.items()}}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        with Path(self.log).open("a") as stream:
            stream.write(f"{self.text} {os.getpid()} {progress}\n")
        (out / "folder").mkdir()
        (out / "folder/result.txt").write_text(self.text)
        (out / "inputs.txt").write_text(
            "".join(path.read_text() for files in inputs.values() for path in files.values())
        )


@dataclass(frozen=True)
class Blocked(Plain):
    """Says through one pipe that it runs, and waits for a line from another. The first stays open while it runs."""

    started: str = ""
    proceed: str = ""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        with Path(self.started).open("w") as started:
            started.write("started\n")
            started.flush()
            Path(self.proceed).read_text()


@dataclass(frozen=True)
class Slow(Plain):
    """Says how far it is, and then for some time lets nothing else of its process run."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        with ProgressBar("plain half", 2, enabled=progress) as bar:
            ctypes.PyDLL(None).usleep(3_500_000)  # without giving the interpreter away
            bar.advance(2)


@dataclass(frozen=True)
class Refusing(Plain):
    """Fails as a stage does when the user's files are wrong."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        try:
            try:
                Path("/nowhere/at/all").read_bytes()
            except OSError as error:
                raise CheckpointError("not readable", where="inner.bin", hint="inner hint") from error
        except CheckpointError as error:
            raise CheckpointError("no good", where="model.bin", hint="try another", exit_code=74) from error


@dataclass(frozen=True)
class Broken(Plain):
    """Fails by a fault of its own."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        raise ZeroDivisionError("a bug")


@dataclass(frozen=True)
class Miswritten(Plain):
    """Applies a pass that puts an operator into a graph that nobody knows."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.passes.apply import apply_passes
        from wanc.compiler.passes.rewrite import Pass, PassOutcome

        from .passes.builder import parse

        def misspell(model: Any) -> PassOutcome:
            model.graph[0].op_type = "Cosin"
            return PassOutcome(1)

        super().run(inputs, out, progress=progress)
        model = parse("g (float[4] x) => (float[4] y) { y = Cos (x) }")
        apply_passes(model, [Pass("misspell", "", misspell)], where="vae_decoder/first")


@dataclass(frozen=True)
class Killed(Plain):
    """Dies as if the system had run out of memory."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Crashing(Plain):
    """Dies of itself, as a library does that follows a null pointer."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Resuming(Plain):
    """Finishes `parts` one after the other, keeps each, and dies behind the first `most` that it has to make."""

    resumes: ClassVar[bool] = True

    parts: int = 4
    most: int = 4

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        made = 0
        for part in range(self.parts):
            kept = scratch_of(out) / f"part-{part}"
            if not kept.exists():
                if made == self.most:
                    os.kill(os.getpid(), signal.SIGKILL)
                kept.write_text(f"{self.text} {os.getpid()}")
                made += 1
            (out / kept.name).write_bytes(kept.read_bytes())


@dataclass(frozen=True)
class Large(Resuming):
    """Says that it writes so many bytes."""

    says: int = 0

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        return self.says


@dataclass(frozen=True)
class Hungry(Plain):
    """Holds 200 MB for a moment."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        assert len(b"x" * 200_000_000) == 200_000_000


@dataclass(frozen=True)
class Endless(Plain):
    """Never ends by itself."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        signal.pause()


@dataclass(frozen=True)
class Greedy(Plain):
    """Wants more memory than any machine has."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        bytearray(2**50)


@dataclass(frozen=True)
class Curious(Plain):
    """Writes down what it can see of the world: variables, the limit of core files, whether anyone can be reached."""

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        super().run(inputs, out, progress=progress)
        interfaces = [name for _, name in socket.if_nameindex()]
        (out / "variables.txt").write_text("\n".join(sorted(os.environ)))
        # What it was started with: libraries may read theirs before Python begins.
        began = Path("/proc/self/environ").read_bytes().decode().split("\0")
        (out / "began.txt").write_text("\n".join(sorted(entry.partition("=")[0] for entry in began if entry)))
        (out / "hash.txt").write_text(str(hash("a text")))
        (out / "core.txt").write_text(str(resource.getrlimit(resource.RLIMIT_CORE)))
        (out / "interfaces.txt").write_text(" ".join(interfaces))
