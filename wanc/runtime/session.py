"""One engine file, open: what its library raises becomes an error that names the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .backends.base import Backend, DeviceBackend
from .backends.open import open_backend
from .engine_file import CPU
from .errors import TargetError, UserError
from .pool import Empty
from .requirements import INSTALL
from .value import Given, as_array, as_value


class Session:
    """A file of an engine with the library that executes it; `backend` is that file if it is open already.

    `lanes` threads may call `run` at once. `shown` is what errors call the file, if not by its path, and `target` what
    it was compiled for; `thrifty` and `empty` are as in `open_backend`.
    """

    def __init__(
        self,
        engine: str,
        path: Path,
        *,
        threads: int,
        lanes: int = 1,
        backend: Backend | None = None,
        shown: str | None = None,
        target: str = CPU,
        thrifty: bool = False,
        empty: Empty = np.empty,
    ) -> None:
        self._engine, self.shown = engine, shown or str(path)
        try:
            self._backend = backend or open_backend(engine, path, threads, lanes, target, thrifty, empty)
        except ModuleNotFoundError as error:
            raise TargetError(f"the package {error.name} is missing", hint=INSTALL) from None
        except UserError:
            raise
        except Exception as error:  # the libraries' exceptions share no base class
            raise TargetError(f"{engine} cannot load this engine", where=self.shown) from error

    @property
    def outputs(self) -> list[str]:
        """The names of what the file gives."""
        return self._backend.outputs

    def run(self, inputs: Mapping[str, Given]) -> dict[str, Given]:
        """Execute the file once. Inputs and outputs by name: arrays, or, of a back end with memory of its own, values.

        Raises InputError for values that the engine would take for others, TargetError where it fails.
        """
        backend = self._backend
        try:
            if isinstance(backend, DeviceBackend):
                outputs = backend.run_there({name: as_value(given) for name, given in inputs.items()})
            else:
                outputs = backend.run({name: as_array(given) for name, given in inputs.items()})
        except UserError:
            raise
        except Exception as error:  # as above
            raise TargetError(f"{self._engine} cannot execute this graph on these inputs", where=self.shown) from error
        return dict(zip(backend.outputs, outputs, strict=True))
