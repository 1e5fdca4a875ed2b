"""A torch module, executed as it was made: eagerly, where it is traced, and recorded for the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.check.origin import Origin
from wanc.compiler.stages.stage import Files

if TYPE_CHECKING:
    import torch

    from wanc.compiler.check.asked import Asked
    from wanc.compiler.check.trials import Arrays, Source


@dataclass(frozen=True)
class TorchOrigin(Origin):
    """What the export has recorded. A function may make another module whenever it is called."""

    name: ClassVar[str] = "torch"
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    def open(self, inputs: Mapping[str, Files], scratch: Path) -> Source:
        from wanc.compiler.check.recorded import RecordedSource

        del scratch
        return RecordedSource(inputs["exported"])


def record(module: torch.nn.Module, asked: Asked, out: Path) -> None:
    """Execute a module at the sizes and on the inputs of a check, into the folder of its program.

    Its weights are moved thereby: nobody may use it any more.
    """
    from wanc.compiler.check.recorded import write_trials
    from wanc.compiler.check.trials import Refused, attempt

    eager = _Eager(module, [value.name for value in asked.inputs], [value.name for value in asked.outputs])
    made = list(attempt(eager, asked))
    eager.move_weights()
    kept = [trial if isinstance(trial, Refused) else (trial, trial.moved()) for trial in made]
    write_trials(kept, "torch, eager", out)


class _Eager:
    """A module on one thread, so that every machine agrees, and every time with the buffers that it was made with."""

    def __init__(self, module: torch.nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        import torch

        torch.set_num_threads(1)
        self._module, self._inputs, self._outputs = module, inputs, outputs
        self._buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def run(self, inputs: Arrays) -> Arrays:
        import torch
        from torch.utils._pytree import tree_leaves

        from wanc.compiler.check.trials import SourceRefuses

        for name, buffer in self._module.named_buffers():
            if name in self._buffers:
                buffer.data.copy_(self._buffers[name])
        torch.manual_seed(0)
        arguments = [torch.from_numpy(inputs[name].copy()) for name in self._inputs]
        try:
            with torch.no_grad():
                results = self._module(*arguments)
            tensors = [leaf.numpy(force=True) for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
            return dict(zip(self._outputs, tensors, strict=True))
        except Exception as error:  # torch's exceptions share no base class
            raise SourceRefuses(str(error)) from error

    def run_moved(self, inputs: Arrays) -> Arrays:
        """With moved inputs; the weights are when `move_weights` has been called."""
        from wanc.compiler.check.moved import moved

        return self.run(moved(inputs))

    def move_weights(self) -> None:
        """Move parameters and buffers, in place."""
        import torch

        from wanc.compiler.check.moved import moved

        with torch.no_grad():
            for number, tensor in enumerate([*self._module.parameters(), *self._buffers.values()]):
                if tensor.dtype in (torch.float32, torch.float64, torch.float16):
                    tensor.copy_(torch.from_numpy(moved({str(number): tensor.numpy(force=True)})[str(number)]))
