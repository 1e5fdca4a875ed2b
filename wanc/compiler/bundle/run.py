"""Run this bundle: python run.py --help"""

import gc
import sys

if __name__ == "__main__":
    # Whatever comes before this has to be Python to an old one as well.
    if sys.version_info < (3, 11):
        sys.stderr.write("error: a bundle runs with Python 3.11 or newer, and this is %d.%d\n" % sys.version_info[:2])
        raise SystemExit(69)
    # Running a bundle writes nothing into it.
    sys.dont_write_bytecode = True
    # Most of a short run is loading libraries. Nothing of that is garbage, and it would be looked at again and again.
    gc.set_threshold(100_000)
    # A json.py beside this file must not be taken for Python's.
    if not sys.flags.safe_path:
        del sys.path[0]

import hashlib
import json
import os
import stat
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, cast

MOST_BYTES = 16 * 2**20


class Runtime:
    """Imports `runtime` from the bundle's open directory, and nothing of it that is not as the manifest lists it.

    Nothing is verified yet: that is what the runtime does first. This sees to it that what verifies is what was sealed.
    """

    def __init__(self, directory: int, shown: str) -> None:
        self.directory, self.shown = directory, shown
        try:
            files = json.loads(self.read("manifest.json"))["files"]
            self.listed: dict[str, str] = {file["path"]: file["sha256"] for file in files}
        except (KeyError, TypeError, ValueError, RecursionError):
            self.refuse("manifest.json is none")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "runtime":
            return None
        name = fullname.replace(".", "/")
        for file, is_package in ((f"{name}/__init__.py", True), (f"{name}.py", False)):
            if file in self.listed:
                spec = ModuleSpec(
                    fullname, cast("Any", self), origin=os.path.join(self.shown, file), is_package=is_package
                )
                spec.loader_state, spec.has_location = file, True
                return spec
        self.refuse(f"it lists no {name}.py")

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own way will do."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "the import system has set it"
        file, origin = module.__spec__.loader_state, module.__spec__.origin
        source = self.read(file)
        if f"sha256:{hashlib.sha256(source).hexdigest()}" != self.listed[file]:
            self.refuse(f"{file} has other bytes")
        exec(compile(source, str(origin), "exec", dont_inherit=True), module.__dict__)

    def read(self, file: str) -> bytes:
        """A file beneath the directory. No link is followed."""
        *folders, name = file.split("/")
        current = os.dup(self.directory)
        try:
            for folder in folders:
                below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                os.close(current)
                current = below
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current), "rb") as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
                    self.refuse(f"{file} is no file of this kind")
                return stream.read()
        except FileNotFoundError:
            self.end(66, f"{self.shown}/{file}: is missing", "is this the directory of a bundle?")
        except OSError as error:
            self.refuse(f"{file} cannot be read: {error.strerror}")
        finally:
            os.close(current)

    def refuse(self, why: str) -> NoReturn:
        said = f"{self.shown}: the bundle is not what its manifest says: {why}"
        self.end(1, said, "fetch or build the bundle again; do not run it")

    def end(self, code: int, said: str, hint: str) -> NoReturn:
        print(f"error: {said}\nhint: {hint}", file=sys.stderr)
        raise SystemExit(code)


if __name__ == "__main__":
    descriptor = os.open(os.path.dirname(os.path.abspath(__file__)), os.O_RDONLY | os.O_DIRECTORY)
    root = Path(f"/proc/self/fd/{descriptor}").resolve()
    sys.meta_path.insert(0, Runtime(descriptor, str(root)))
    opened = import_module("runtime.directory").BundleDirectory(root, descriptor)
    raise SystemExit(import_module("runtime.main").main(opened))
