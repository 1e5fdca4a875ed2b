"""Graphs on disk: equal graphs are equal bytes, in whichever process they were made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMPILED = """
import hashlib, sys
from pathlib import Path
from tests.compiler.quantised import compiled, linear
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
folder = Path(sys.argv[1])
model = linear("int4-weight", 160, 96, folder)
for domain in [*model.opset_imports]:  # those of kernels come with these
    if domain:
        del model.opset_imports[domain]
path = compiled(OnnxRuntimeCompiler(), model, folder)
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_the_order_of_sets_is_not_in_a_file(tmp_path: Path) -> None:
    """Sets of texts have another order for every seed of their hashes, of which each process draws its own."""
    running: list[subprocess.Popen[str]] = []
    for seed in (0, 1):  # at which the order of the domains in this file was another one
        folder = tmp_path / str(seed)
        folder.mkdir()
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", COMPILED, str(folder)],
                env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    digests = [process.communicate()[0] for process in running]
    assert all(digests) and len(set(digests)) == 1
