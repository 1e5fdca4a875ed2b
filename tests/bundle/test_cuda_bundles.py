"""Bundles for CUDA: built where there is no GPU, and executed where there is one. See also `runtime/test_cuda.py`."""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from wanc.compiler.engines.distributions import RUN_BY
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.backends.cuda import PROVIDER
from wanc.runtime.backends.onnxruntime import session_options
from wanc.runtime.errors import TargetError
from wanc.runtime.execute import run_selftest
from wanc.runtime.golden import EXPECTED, FOLDER, INPUTS, named
from wanc.runtime.manifest import Manifest
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.session import Session
from wanc.runtime.verify import verify

from .conftest import MakeVariant, RunPy

WIDTH = 64
RECIPE = """\
wanc: 1
name: small
model: {onnx: m.onnx, example: {rows: 16}}
engine: {targets: [cuda]}
"""
HAS_CUDA = PROVIDER in onnxruntime.get_available_providers()


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """For `-m gpu`, where there is one."""
    return pytest.mark.gpu(pytest.mark.skipif(not HAS_CUDA, reason="onnxruntime-gpu is not installed")(test))


def write_model(path: Path) -> None:
    """Two attentions, one with a mask, a norm, and a GELU behind a bias."""
    model = onnx.parser.parse_model(
        '<ir_version: 11, opset_import: ["" : 23]>'
        f"attend (float[1, rows, {WIDTH}] x, float[1, 1, rows, rows] mask) => (float[1, rows, {WIDTH}] y) {{"
        " n = RMSNormalization <axis = -1, epsilon = 0.00001> (x, scale) q = MatMul (n, wq) k = MatMul (n, wk)"
        " v = MatMul (n, wv) a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)"
        " b = Attention <q_num_heads = 2, kv_num_heads = 2> (a, k, v, mask)"
        ' u = MatMul (b, wo) s = Add (u, bias) g = Gelu <approximate = "tanh"> (s) y = Add (g, x) }'
    )
    random = np.random.default_rng(3)
    shapes = {**dict.fromkeys(("wq", "wk", "wv", "wo"), (WIDTH, WIDTH)), "scale": (WIDTH,), "bias": (WIDTH,)}
    for name, shape in shapes.items():
        weight = random.normal(0, WIDTH**-0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, path)


def built(root: Path, *overrides: str) -> Path:
    (loaded,) = load(root / "recipe.yaml", list(overrides))
    return build(loaded, root / "out", progress=False).bundle


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cuda")
    write_model(root / "m.onnx")
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def small(project: Path) -> Path:
    return built(project)


def engines_of(bundle: Path) -> list[dict[str, Any]]:
    entries: Any = Manifest.read(bundle).topology["engines"]
    return entries


def recorded(bundle: Path, where: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The golden record of a graph: what it is given, and what it gives."""
    component, graph = where.split("/")
    inputs, expected = (named(SafetensorsFile(bundle / FOLDER / file), component, graph) for file in (INPUTS, EXPECTED))
    return dict(inputs), dict(expected)


def test_it_is_a_sealed_bundle_for_the_gpu(small: Path) -> None:
    assert verify(small).ok
    (entry,) = engines_of(small)
    assert (entry["engine"], entry["target"], entry["device"]) == ("onnxruntime", "cuda", "gpu0")
    assert "built" not in entry, "the graph is what the library executes"


def test_it_takes_the_library_for_gpus_and_no_other(small: Path) -> None:
    """In a version that there is; it is not installed here, and nothing was made with it."""
    lines = (small / "requirements.txt").read_text().splitlines()
    ((name, version),) = RUN_BY["onnxruntime", "cuda"].items()
    assert [line for line in lines if line.startswith("onnxruntime")] == [f"{name}=={version}"]
    tools = json.loads((small / "recipe.lock.json").read_bytes())["tools"]
    assert tools["onnxruntime"] == importlib.metadata.version("onnxruntime") and name not in tools


def test_what_it_asks_for_is_reported_and_was_compared_with_the_source(small: Path) -> None:
    entry = json.loads((small / "engine_report.json").read_bytes())["components"]["model"]["main"]
    assert (entry["executed"], entry["precision"]) == (False, "float32")
    assert entry["fused"] == {"Attention": 2, "RMSNormalization": 1}
    assert entry["kernels"]["MultiHeadAttention"] == {"float": 1} and entry["kernels"]["FastGelu"] == {"float": 1}
    checked: Any = Manifest.read(small).check["graphs"]
    trials = checked["model/main"]["trials"]
    assert checked["model/main"]["compared"] == {"lowered graph": "float32"}
    assert all(trial["errors"]["lowered graph"] < 1e-5 for trial in trials) and len(trials) > 1


def test_nothing_in_it_is_the_cpu_s_alone(small: Path) -> None:
    model = ir.load(small / engines_of(small)[0]["file"])
    operators = {(node.domain, node.op_type) for node in model.graph.all_nodes()}
    assert ("com.microsoft", "MultiHeadAttention") in operators
    assert not {name for domain, name in operators if domain and name not in ("MultiHeadAttention", "FastGelu")}


def test_its_record_is_what_the_graph_gives(small: Path) -> None:
    """Here it is executed by the CPU, which has kernels for all of it as well."""
    inputs, expected = recorded(small, "model/main")
    (entry,) = engines_of(small)
    found = Session("onnxruntime", small / entry["file"], threads=1).run(inputs)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-4, atol=1e-5)


def test_where_it_cannot_run_it_says_what_to_install_before_any_work(
    small: Path, run_py: RunPy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("an engine is opened")

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("wanc.runtime.session.open_backend", never)
    finished = run_py(small, "--selftest")
    assert finished.code == TargetError.exit_code
    assert finished.err.startswith("error: this bundle is for an NVIDIA GPU, and the onnxruntime that is installed is")
    assert "pip uninstall -y onnxruntime, then pip install -r requirements.txt" in finished.err


@pytest.mark.slow
def test_a_whole_model_computes_what_its_record_says(variant: MakeVariant) -> None:
    """Every graph of tiny-wan as it is lowered for CUDA, executed by the CPU; and cut, it is the same."""
    bundle = variant("on-cuda", "engine.targets=[cuda]", "partition.cut=blocks").root
    assert verify(bundle).ok
    by_graph: dict[str, list[dict[str, Any]]] = {}
    for entry in engines_of(bundle):
        assert (entry["target"], entry["device"]) == ("cuda", "gpu0")
        by_graph.setdefault(f"{entry['component']}/{entry['graph']}", []).append(entry)
    assert len(by_graph["denoiser_high/step"]) > 1
    for where, entries in by_graph.items():
        values, expected = recorded(bundle, where)
        for entry in sorted(entries, key=lambda entry: entry["segment"]):
            session = Session("onnxruntime", bundle / entry["file"], threads=1)
            values |= session.run({name: values[name] for name in entry["inputs"]})
        for name, array in expected.items():
            error = np.linalg.norm(values[name] - array) / max(np.linalg.norm(array), 1e-30)
            assert error < 1e-4, (where, name)


# What a machine with a GPU and onnxruntime-gpu executes.


@on_gpu
def test_on_a_gpu_it_computes_what_was_recorded(small: Path) -> None:
    assert run_selftest(small, threads=1).ok


@on_gpu
def test_on_a_gpu_a_whole_model_gives_the_cpu_s_frames(
    variant: MakeVariant, tiny_bundle: Path, run_py: RunPy, tmp_path: Path
) -> None:
    root = variant("on-cuda", "engine.targets=[cuda]", "partition.cut=blocks").root
    assert run_selftest(root, threads=1).ok
    frames: list[np.ndarray] = []
    for bundle in (root, tiny_bundle):
        path = tmp_path / f"{bundle.name}.npy"
        assert run_py(bundle, "--prompt", "A red circle moves.", "--steps", 4, "--seed", 3, "-o", path).code == 0
        frames.append(np.load(path).astype(np.int64))
    assert np.abs(frames[0] - frames[1]).max() <= 1, "a pixel may be rounded otherwise"


@on_gpu
def test_on_a_gpu_every_product_is_executed_there(small: Path, tmp_path: Path) -> None:
    options = session_options(threads=1)
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(small / engines_of(small)[0]["file"], options, providers=[PROVIDER])
    session.run(None, recorded(small, "model/main")[0])
    events = json.loads(Path(session.end_profiling()).read_bytes())
    nodes = [event["args"] for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    where = Counter((node["op_name"], node["provider"]) for node in nodes)
    assert {provider for (name, provider) in where if name not in ("Shape", "Concat", "Gather")} == {PROVIDER}
