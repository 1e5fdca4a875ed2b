"""Foreign models, ONNX and torch, that cannot be built: all that is said, the exit code, and nothing half-written."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from wanc import cli
from wanc.compiler.fuse import Fuse

from ..models.test_onnx_inference import EYE_LIKE, SPLIT, in_the_middle
from ..models.test_onnx_inference import HINT as FATAL_HINT
from ..models.test_onnx_inference import ONNX as LIBRARY
from .bad_input import (
    ROOT,
    Break,
    Case,
    answer,
    assert_nothing_half_written,
    both,
    cut,
    edit,
    prober,
    run,
    safetensors,
    without_chance,
    write,
)
from .prober import call_in_fork

ONNX = """\
wanc: 1
name: graph
model:
  onnx: m.onnx
  example: {n: 3}
"""
TORCH = """\
wanc: 1
name: graph
model:
  torch: modules:make
  inputs:
    - {name: x, shape: [n, 4]}
  example: {n: 3}
"""
BUILD = "build graph.yaml"
GRAPH = "g (float[n, 4] x) => (float[n, 4] y) { y = MatMul (x, w) }"
MAKE = "import torch\n\n\ndef make():\n"


def onnx_model(
    values: np.ndarray | None = None, *, text: str = GRAPH, location: str = "m.data", shape: tuple[int, ...] = ()
) -> Break:
    """Write `m.onnx`, one product with the weight `w`, and its values, by default ones [4, 4], as `m.data`.

    The model says that they have `shape` and lie at `location`.
    """
    content = np.ones((4, 4), np.float32) if values is None else values
    shape = shape or content.shape

    def broken() -> None:
        Path("graph.yaml").write_text(ONNX)
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
        external = onnx.TensorProto.EXTERNAL
        weight = model.graph.initializer.add(name="w", data_type=1, dims=shape, data_location=external)
        for key, value in {"location": location, "offset": 0, "length": 4 * math.prod(shape)}.items():
            weight.external_data.add(key=key, value=str(value))
        Path("m.onnx").write_bytes(model.SerializeToString())
        Path("m.data").write_bytes(content.tobytes())

    return broken


def with_value(value: float) -> np.ndarray:
    content = np.ones((4, 4), np.float32)
    content[2, 1] = value
    return content


def torch_model(code: str, old: str = "", new: str = "") -> Break:
    """Write `modules.py`, which the recipe names, and change the recipe."""

    def broken() -> None:
        assert not old or TORCH.count(old) == 1
        Path("graph.yaml").write_text(TORCH.replace(old, new) if old else TORCH)
        Path("modules.py").write_text(code)

    return broken


CASES: dict[str, Case] = {
    # ONNX: the file
    "no ONNX file": Case(
        BUILD,
        code=66,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: no such file\n"
        "caused by: No such file or directory\n",
        broken=write("graph.yaml", ONNX),
    ),
    "a folder for an ONNX file": Case(
        f"{BUILD} --set model.onnx=.",
        code=66,
        err="error: --set model.onnx=.: the model cannot be read\n"
        "caused by: DIR: cannot be read\n"
        "caused by: Is a directory\n",
        broken=write("graph.yaml", ONNX),
    ),
    "a checkpoint's weights for an ONNX file": Case(
        f"{BUILD} --set model.onnx=x.safetensors",
        code=65,
        err="error: --set model.onnx=x.safetensors: the model cannot be read\n"
        "caused by: DIR/x.safetensors: not an ONNX file\n"
        "hint: is the download complete?\n",
        broken=both(write("graph.yaml", ONNX), write("x.safetensors", safetensors([1], 4))),
    ),
    "an empty ONNX file": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: no graph with outputs in this file\n"
        "hint: is this an ONNX model?\n",
        broken=both(write("graph.yaml", ONNX), write("m.onnx", b"")),
    ),
    "a truncated ONNX file": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: not an ONNX file\n"
        "hint: is the download complete?\n",
        broken=both(onnx_model(), cut("m.onnx", 1)),
    ),
    "an ONNX file at which a library crashes": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        f"caused by: DIR/m.onnx: {LIBRARY} crashes (SIGSEGV) over node 0 (EyeLike)\n{FATAL_HINT}\n",
        broken=both(write("graph.yaml", ONNX), write("m.onnx", EYE_LIKE)),
    ),
    "an ONNX file that takes gigabytes": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        f"caused by: DIR/m.onnx: {LIBRARY} takes more memory than a file of this size may over node 0 (Split)\n"
        f"{FATAL_HINT}\n",
        broken=both(write("graph.yaml", ONNX), write("m.onnx", SPLIT)),
    ),
    "an ONNX file at which a library would crash later": Case(
        BUILD,
        code=65,
        err=f"error: DIR/m.onnx: {LIBRARY} crashes (SIGSEGV) over node 'eye' (EyeLike)\n{FATAL_HINT}\n",
        broken=both(
            write("graph.yaml", ONNX.replace("  example: {n: 3}\n", "")),
            write("m.onnx", in_the_middle().SerializeToString()),
        ),
    ),
    "an unknown operator": Case(
        BUILD,
        code=65,
        err="export: S s, peak N MiB\n"
        "fuse: S s, peak N MiB\n"
        "partition: S s, peak N MiB\n"
        "compile model/0: S s, peak N MiB\n"
        "error: model/main: onnxruntime cannot load this graph\n"
        "caused by: [ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from "
        "main.s0.cpu.onnx failed:This is an "
        'invalid model. In Node, ("", Frobnicate, "", -1) : ("x": tensor(float),"w": '
        'tensor(float),) -> ("y": tensor(float),) , Error No Op registered for Frobnicate with '
        "domain_version of 21\n",
        broken=onnx_model(text="g (float[n, 4] x) => (float[n, 4] y) { y = Frobnicate (x, w) }"),
    ),
    "a name that nothing gives": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: node 0 (MatMul) uses 'z', which nothing before it computes\n"
        "hint: either the name is wrong, or the nodes are in a cycle or out of order\n",
        broken=onnx_model(text="g (float[n, 4] x) => (float[n, 4] y) { y = MatMul (z, w) }"),
    ),
    # its weights
    "1 TiB in an ONNX file's 4 bytes": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: tensor 'w' has 1099511627776 bytes, more than the 17179869184 allowed\n",
        broken=both(onnx_model(shape=(2**20, 2**18)), write("m.data", b"\0" * 4)),
    ),
    "truncated weights of an ONNX file": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: tensor 'w' ends at byte 64 of 'm.data', which has 63\n"
        "hint: is the download complete?\n",
        broken=both(onnx_model(), cut("m.data", 1)),
    ),
    "missing weights of an ONNX file": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: its weights lie in 'm.data', which is missing\n"
        "caused by: No such file or directory\n"
        "hint: is the download complete?\n",
        broken=both(onnx_model(), lambda: Path("m.data").unlink()),
    ),
    "weights outside of the folder": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: tensor 'w' lies in '../m.data', which leads out of the model's folder\n",
        broken=onnx_model(location="../m.data"),
    ),
    "weights at an absolute path": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: tensor 'w' lies in '/etc/passwd', which is not relative to the "
        "model's folder\n",
        broken=onnx_model(location="/etc/passwd"),
    ),
    "weights behind a link": Case(
        BUILD,
        code=65,
        err="error: graph.yaml:4:9: the model cannot be read\n"
        "caused by: DIR/m.onnx: its weights lie in 'm.data', which cannot be opened without "
        "following links\n"
        "caused by: Too many levels of symbolic links\n"
        "hint: put the file itself beside the model\n",
        broken=both(onnx_model(), lambda: Path("m.data").rename("real"), lambda: Path("m.data").symlink_to("real")),
    ),
    "a NaN among the weights": Case(
        BUILD,
        code=65,
        err="export: S s, peak N MiB\n"
        "fuse: S s, peak N MiB\n"
        "partition: S s, peak N MiB\n"
        "error: DIR/m.data: model: tensor w holds 1 value that is not finite\n"
        "hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [w]\n",
        broken=onnx_model(with_value(np.nan)),
    ),
    "an infinity among the weights": Case(
        BUILD,
        code=65,
        err="export: S s, peak N MiB\n"
        "fuse: S s, peak N MiB\n"
        "partition: S s, peak N MiB\n"
        "error: DIR/m.data: model: tensor w holds 1 value that is not finite\n"
        "hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [w]\n",
        broken=onnx_model(with_value(np.inf)),
    ),
    # what the recipe says of it
    "no size for a symbol": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:9: model.example gives no size for n\nhint: give sizes that work: {n: …}\n",
        broken=both(onnx_model(), edit("  example: {n: 3}\n", "", "graph.yaml")),
    ),
    "a size for no symbol": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:5:22: model.example names 'm', which is no size of the model\nhint: it has: n\n",
        broken=both(onnx_model(), edit("{n: 3}", "{n: 3, m: 3}", "graph.yaml")),
    ),
    "a value for no input": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:6:15: model.values names 'z', which is no input of the model\nhint: it has: x\n",
        broken=both(onnx_model(), edit("{n: 3}", "{n: 3}\n  values: {z: 1}", "graph.yaml")),
    ),
    # torch: the function
    "no module": Case(
        BUILD,
        code=66,
        err="error: graph.yaml:4:10: the model cannot be read\n"
        "caused by: DIR: there is no module modules beside the recipe or where Python looks\n"
        "hint: install it, or add its folder to PYTHONPATH\n",
        broken=write("graph.yaml", TORCH),
    ),
    "no such function": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make fails\n"
        "caused by: AttributeError: module 'modules' has no attribute 'make'\n"
        "hint: it is called without arguments\n",
        broken=torch_model("import torch\n"),
    ),
    "a module with a syntax error": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make fails\n"
        "caused by: SyntaxError: invalid syntax (modules.py, line 1)\n"
        "hint: it is called without arguments\n",
        broken=torch_model("def make(:\n"),
    ),
    "a function that fails": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make fails\n"
        "caused by: OSError: the weights are not there (modules.py:2)\n"
        "hint: it is called without arguments\n",
        broken=torch_model("def make():\n    raise OSError('the weights are not there')\n"),
    ),
    "a function that wants arguments": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make fails\n"
        "caused by: TypeError: make() missing 1 required positional argument: 'size'\n"
        "hint: it is called without arguments\n",
        broken=torch_model("def make(size):\n    return size\n"),
    ),
    "a function that returns no module": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make returns a int, not a torch.nn.Module\n",
        broken=torch_model("def make():\n    return 7\n"),
    ),
    "a function that exits": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make fails\n"
        "caused by: SystemExit: 3 (modules.py:2)\n"
        "hint: it is called without arguments\n",
        broken=torch_model("def make():\n    raise SystemExit(3)\n"),
    ),
    "files that are not there": Case(
        BUILD,
        code=66,
        err="error: graph.yaml:4:10: the model cannot be read\ncaused by: DIR/weights.bin: no such file or folder\n",
        broken=torch_model("", "{n: 3}", "{n: 3}\n  files: [weights.bin]"),
    ),
    # its description
    "inputs that forward does not take": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: torch cannot trace modules:make\n"
        "caused by: RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x5)\n"
        "hint: are the inputs those of forward, in order, and do the sizes under example work together?\n",
        broken=torch_model(f"{MAKE}    return torch.nn.Linear(5, 5)\n"),
    ),
    "too many inputs": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: torch cannot trace modules:make\n"
        "caused by: TypeError: Linear.forward() takes 2 positional arguments but 3 were given\n"
        "hint: are the inputs those of forward, in order, and do the sizes under example work together?\n",
        broken=torch_model(
            f"{MAKE}    return torch.nn.Linear(4, 4)\n",
            "    - {name: x, shape: [n, 4]}\n",
            "    - {name: x, shape: [n, 4]}\n    - {name: z, shape: [n]}\n",
        ),
    ),
    "a size that cannot change": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make: the size m of x cannot change, it is always 4\n"
        "hint: write 4 in its place, or give another size under example\n",
        broken=both(
            torch_model(f"{MAKE}    return torch.nn.Linear(4, 4)\n", "[n, 4]", "[n, m]"),
            edit("{n: 3}", "{n: 3, m: 4}", "graph.yaml"),
        ),
    ),
    "too many outputs": Case(
        BUILD,
        code=2,
        err="error: graph.yaml:4:10: modules:make: outputs names 2 of 1 results\n",
        broken=torch_model(f"{MAKE}    return torch.nn.Linear(4, 4)\n", "{n: 3}", "{n: 3}\n  outputs: [a, b]"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_answer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    assert answer(case, tmp_path) == (case.code, case.out, case.err)


LOADED = """
import sys
sys.argv = ["wanc", "build", "graph.yaml"]
try:
    from wanc.cli import main
    main()
finally:
    print({"onnx", "onnx_ir", "onnxruntime", "google.protobuf"} & sys.modules.keys())
"""


@pytest.mark.parametrize("name", ["an ONNX file at which a library crashes", "an ONNX file that takes gigabytes"])
def test_as_a_user_starts_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes begin anew where the other tests fork them; in the build's own there is nothing that could crash."""
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    case.broken()
    finished = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stderr.replace(str(tmp_path), "DIR")) == (case.code, case.err)
    assert finished.stdout == "set()\n"


def build_that_crashes(folder: Path) -> None:
    os.chdir(folder)
    Fuse.run = lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV)  # type: ignore[method-assign]
    sys.argv = ["wanc", *BUILD.split()]
    cli.main()


def test_a_stage_that_crashes_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_model()()
    finished = prober().submit(call_in_fork, partial(build_that_crashes, tmp_path)).result(60)
    error = finished.stderr.replace(str(tmp_path), "DIR").splitlines()[1:]
    assert (finished.returncode, error[0]) == (65, "error: DIR/m.onnx: the process of stage fuse crashed (SIGSEGV)")
    assert_nothing_half_written(tmp_path / "artifacts", [])


def test_infinities_that_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx_model(with_value(np.inf))()
    edit("{n: 3}", "{n: 3}\n  allow_not_finite: [w]", "graph.yaml")()
    finished = run(BUILD, tmp_path)
    assert (finished.returncode, finished.stdout.split("  ")[0]) == (0, "artifacts/bundles/graph"), finished.stderr


WIDE = "g (float[n, 1024] x) => (float[n, 1024] y) { y = MatMul (x, w) }"
FULL = """
mount -t tmpfs -o size=2m tmpfs artifacts || exit 99
"$0" -m wanc build graph.yaml; echo "exit $?"
ls -A artifacts/bundles artifacts/store/tmp artifacts/store/quarantine 2>/dev/null
mount -o remount,size=64m artifacts && exec "$0" -m wanc build graph.yaml
"""


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 MiB of weights for a disk of 2 MiB. What was done before is used when there is space again."""
    monkeypatch.chdir(tmp_path)
    onnx_model(np.ones((1024, 1024), np.float32), text=WIDE)()
    Path("artifacts").mkdir()
    finished = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL, sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if finished.returncode == 99 or "unshare failed" in finished.stderr:
        pytest.skip("needs the right to mount in a namespace of its own")
    before, after = re.split(r"(?<=--store\n)", without_chance(finished.stderr, tmp_path))
    assert before == (
        "export: S s, peak N MiB\n"
        "fuse: S s, peak N MiB\n"
        "partition: S s, peak N MiB\n"
        "error: DIR/artifacts/store: no space for the stage compile model/0: about N bytes needed, N bytes free\n"
        "hint: free some space, with `wanc store gc` for one, or choose a store on another file system: --store\n"
    )
    computed = "".join(f"{stage}: S s, peak N MiB\n" for stage in ("compile model/0", "engine", "check", "seal"))
    assert after == f"export: cached\nfuse: cached\npartition: cached\n{computed}"
    empty = "artifacts/store/quarantine:\n\nartifacts/store/tmp:\n"
    assert re.fullmatch(rf"exit 74\n{empty}artifacts/bundles/graph  sha256:\w{{64}}\n", finished.stdout)
