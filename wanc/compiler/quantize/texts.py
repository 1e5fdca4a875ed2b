"""The texts stage: what the text encoder makes of a list of prompts, computed once for both experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np

from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.stages.stage import Files, Stage
from wanc.compiler.weights.embedding import open_embedding
from wanc.runtime import safetensors
from wanc.runtime.progress import ProgressBar
from wanc.runtime.value import as_values

Array = np.ndarray[Any, Any]
RESULT, TENSOR = "texts.safetensors", "texts"


@dataclass(frozen=True)
class Texts(Stage):
    """Inputs `program`, `exported` and `source`. Result: `texts.safetensors`, float32 [prompts, text length, width].

    The encoder is as the program has it: quantised, if it is by then. `tokenizer` names its file among the source's.
    """

    name: ClassVar[str] = "texts"
    tools: ClassVar[tuple[str, ...]] = (
        "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes", "tokenizers", "ftfy",
    )  # fmt: skip

    prompts: tuple[str, ...]
    tokenizer: str

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        from wanc.compiler.host.chain import MOST_WEIGHT_BYTES
        from wanc.compiler.program.disk_use import FLOAT_BYTES, executed_bytes, with_others
        from wanc.runtime.encode import COMPONENT

        program = Program.read(inputs["program"][FILE])
        assert program.model is not None and program.embedding is not None
        texts = FLOAT_BYTES * len(self.prompts) * program.model.text_length * program.embedding.shape[1]
        return with_others(min(executed_bytes(ComponentFiles.read(COMPONENT, inputs)), MOST_WEIGHT_BYTES) + texts)

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.host.chain import chain_of
        from wanc.runtime.encode import COMPONENT, GRAPH, text_states

        program = Program.read(inputs["program"][FILE])
        assert program.model is not None
        read = prompt_reader(program, inputs["source"], self.tokenizer)
        with TemporaryDirectory(dir=out.parent) as folder:
            encoder = chain_of(ComponentFiles.read(COMPONENT, inputs), GRAPH, Path(folder) / COMPONENT)
            given = [read(prompt) for prompt in self.prompts]
            with ProgressBar(self.name, len(encoder.pieces), enabled=progress) as bar:
                gave = encoder.run_once(given, bar.advance)
        text_length = program.model.text_length
        texts = [text_states(as_values(outputs), one, text_length) for outputs, one in zip(gave, given, strict=True)]
        safetensors.write(out / RESULT, {TENSOR: np.concatenate(texts)})


def prompt_reader(program: Program, source: Files, tokenizer: str) -> Callable[[str], dict[str, Array]]:
    """What makes the text encoder's inputs of a prompt; `tokenizer` names its file among the source's."""
    from wanc.runtime.encode import encoder_inputs
    from wanc.runtime.text import Tokenizer

    assert program.model is not None and program.embedding is not None
    opened = Tokenizer.open(source[tokenizer].parent, program.model.text_length)
    return partial(encoder_inputs, tokenizer=opened, table=open_embedding(program.embedding, source))
