"""A bundle on two devices, run by itself and by wanc: its processes execute what was verified, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.compiler.bundle.seal import _program_files
from wanc.runtime.errors import VerificationError
from wanc.runtime.graph_task import GraphPipeline
from wanc.runtime.main import main
from wanc.runtime.workers.create import TIMEOUT, chosen_timeout

from .test_bundle import golden

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory as Linux has it")
PLUS = """<ir_version: 11, opset_import: ["" : 23]>
g (float[n, m] {given}) => (float[n, m] {taken}) {{ c = Constant <value_float = 1.0> () {taken} = Add ({given}, c) }}"""
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def sealed(root: Path, *devices: str) -> Path:
    """y = x + 1 for each device, with the runtime that ships."""
    names = ["x", *(f"v{index}" for index in range(1, len(devices))), "y"]
    entries: list[dict[str, Any]] = []
    files = list(_program_files())
    for index, device in enumerate(devices):
        given, taken = names[index : index + 2]
        model = onnx.parser.parse_model(PLUS.format(given=given, taken=taken)).SerializeToString()
        files.append(BundleFile(f"engines/{index}.onnx", model, role="engine", media_type="application/onnx"))
        entries.append(
            {
                "component": "model", "graph": "main", "segment": index, "engine": "onnxruntime", "target": "cpu",
                "profile": None, "device": device, "file": f"engines/{index}.onnx", "inputs": [given],
                "outputs": [taken],
            }
        )  # fmt: skip
    tensor = {"dtype": "float32", "shape": ["n", "m"]}
    given = {"name": "x", **tensor, "binding": "step", "per": "request", "shape_of": None}
    interface: dict[str, Any] = {"inputs": [given], "outputs": [{"name": "y", **tensor, "state": None}]}
    components: dict[str, Any] = {"model": {"main": interface}}
    for name, data in golden(root / "golden", components).items():
        files.append(BundleFile(name, data, role="golden", media_type="application/octet-stream"))
    topology: dict[str, Any] = {"components": components, "engines": entries}
    facts = BundleFacts(
        "plus", "1.0", 0, "run.py", f"sha256:{'0' * 64}",
        topology,
        {"task": "graph", "threads": 1},
        requires=("segments/1",) if len(devices) > 1 else (),
    )  # fmt: skip
    return seal(root / "bundle", files, facts).path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sealed(tmp_path_factory.mktemp("plus"), "cpu.0", "cpu.1", "cpu.0")


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "plus"))


def python(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_a_bundle_runs_itself(bundle: Path, tmp_path: Path, workers: str) -> None:
    """From anywhere, whatever lies there: its processes import what it holds."""
    for name in ("json.py", "numpy.py", "runtime.py", "wanc.py"):
        (tmp_path / name).write_text("raise SystemExit('this is another one')")
    np.savez(tmp_path / "in.npz", x=X)
    options = ("--inputs", "in.npz", "-o", "out.npz", "--workers", workers)
    done = python(bundle / "run.py", *options, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.load(tmp_path / "out.npz")["y"].tolist() == (X + 3).tolist()


LATER = """
import sys
from pathlib import Path
sys.dont_write_bytecode = True
entry = {{'__name__': 'entry'}}
exec(Path({root!r}, 'run.py').read_text(), entry)
import os, numpy
descriptor = os.open({root!r}, os.O_RDONLY | os.O_DIRECTORY)
sys.meta_path.insert(0, entry['Runtime'](descriptor, {root!r}))
from runtime.directory import BundleDirectory
from runtime.errors import UserError, render
from runtime.graph_task import GraphPipeline
pipeline = GraphPipeline.open(BundleDirectory(Path({root!r}), descriptor), threads=1, workers='processes')
{change}
try:
    print(pipeline.run({{'x': numpy.zeros((1, 1), 'float32')}})['y'].item())
except UserError as error:
    print(render(error))
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("Path({root!r}).rename({root!r} + '-old')", "3.0"),
        ("Path({root!r}, 'runtime/workers/plan.py').write_text('raise SystemExit(5)')",
         "ended before it had started, for segment 0 of model/main: its exit code is 1\n"),
        ("Path({root!r}, 'run.py').write_text('raise SystemExit(5)')",
         "error: {root}/run.py: was changed since it was verified\n"),
        ("Path({root!r}, 'engines/0.onnx').write_bytes(b'')",
         "error: {root}/engines/0.onnx: was changed since it was verified\n"
         "hint: nobody may write to a bundle that runs: fetch or build it again\n"),
    ],
    ids=["its name", "its runtime", "its entry", "an engine"],
)  # fmt: skip
def test_what_changes_while_a_bundle_runs(change: str, said: str, bundle: Path) -> None:
    """Processes start after it was verified, and see to it themselves that it is what it was."""
    root = str(bundle)
    done = python("-c", LATER.format(root=root, change=change.format(root=root)), folder=bundle.parent)
    assert done.stderr == "" and said.format(root=root) in done.stdout
    assert "SystemExit" not in done.stdout


def test_the_same_with_the_runtime_of_wanc(bundle: Path) -> None:
    pipeline = GraphPipeline.open(bundle, threads=1, workers="processes", worker_timeout=60)
    assert pipeline.run({"x": X})["y"].tolist() == (X + 3).tolist()
    pipeline = GraphPipeline.open(bundle, threads=1, workers="processes")
    (bundle / "engines" / "1.onnx").write_bytes(b"")
    with pytest.raises(VerificationError, match=r"1\.onnx: was changed since it was verified"):
        pipeline.run({"x": X})


def test_what_cannot_be_chosen(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "in.npz", x=X)
    alone = sealed(tmp_path / "alone", "cpu")

    def said(root: Path, *options: str) -> tuple[int, str]:
        code = main(root, ["--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz"), *options])
        return code, capfd.readouterr().err

    assert said(alone, "--workers", "processes") == (
        2,
        "error: there are no processes of workers: this bundle is placed on one device\n"
        "hint: leave --workers out, or build for several devices\n",
    )
    assert said(alone, "--worker-timeout", "5") == (
        2,
        "error: a time-out for workers has no effect: this bundle is placed on one device\n"
        "hint: leave --worker-timeout out\n",
    )
    assert said(alone, "--workers", "threads") == (0, "")
    assert said(bundle, "--workers", "fibres") == (
        2,
        "error: workers are 'fibres'\nhint: ask for threads, processes, or ray:HOST:PORT, a cluster that is running\n",
    )
    for seconds in ("0", "-1", "nan", "inf"):
        code, err = said(bundle, "--worker-timeout", seconds)
        assert code == 2 and err.startswith(f"error: a time-out of {seconds} s for workers\nhint: give more than 0")
    assert chosen_timeout(None, ("cpu",)) == TIMEOUT
