"""The texts stage: what the text encoder makes of a list of prompts, computed once for both experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.stages.stage import Files, Stage
from wanc.compiler.weights.embedding import open_embedding
from wanc.runtime import safetensors
from wanc.runtime.progress import ProgressBar
from wanc.runtime.value import Value, as_values

if TYPE_CHECKING:
    from wanc.compiler.host.chain import Chain

Array = np.ndarray[Any, Any]
RESULT, TENSOR = "texts.safetensors", "texts"


@dataclass(frozen=True)
class Texts(Stage):
    """Inputs `program`, `exported` and `source`. Result: `texts.safetensors`, float32 [prompts, text length, width].

    `tokenizer` names its file among the source's.
    """

    name: ClassVar[str] = "texts"
    tools: ClassVar[tuple[str, ...]] = (
        "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes", "tokenizers", "ftfy",
    )  # fmt: skip

    prompts: tuple[str, ...]
    tokenizer: str

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        from wanc.compiler.program.disk_use import FLOAT_BYTES, executed_bytes, with_others
        from wanc.runtime.encode import COMPONENT

        program = Program.read(inputs["program"][FILE])
        assert program.model is not None and program.embedding is not None
        texts = FLOAT_BYTES * len(self.prompts) * program.model.text_length * program.embedding.shape[1]
        return with_others(executed_bytes(ComponentFiles.read(COMPONENT, inputs)) + texts)

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.host.chain import chain_of
        from wanc.runtime.encode import COMPONENT, GRAPH, encode_prompt
        from wanc.runtime.text import Tokenizer

        program, source = Program.read(inputs["program"][FILE]), inputs["source"]
        assert program.model is not None and program.embedding is not None
        tokenizer = Tokenizer.open(source[self.tokenizer].parent, program.model.text_length)
        table = open_embedding(program.embedding, source)
        with (
            TemporaryDirectory(dir=out.parent) as folder,
            ProgressBar(self.name, len(self.prompts), enabled=progress) as bar,
        ):
            encoder = _Encoder(chain_of(ComponentFiles.read(COMPONENT, inputs), GRAPH, Path(folder) / COMPONENT))
            texts: list[Array] = []
            for prompt in self.prompts:
                texts.append(encode_prompt(prompt, tokenizer, table, encoder))
                bar.advance()
        safetensors.write(out / RESULT, {TENSOR: np.concatenate(texts)})


@dataclass(frozen=True)
class _Encoder:
    """The text encoder in place of a bundle's executor."""

    chain: Chain

    def run(self, component: str, graph: str, inputs: Mapping[str, Array]) -> dict[str, Value]:
        del component, graph  # there is no other
        (outputs,) = self.chain.run([inputs])
        return as_values(outputs)
