"""Wan2.2-T2V-A14B at its full size is exported from files that are holes: nothing reads a weight on the way."""

from __future__ import annotations

import math
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.export.wan import Export
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.stages.worker import run_in_worker
from wanc.models.wan.checkpoint import open_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("fresh_stages")]

GIB = 2**30
MOST_RSS = 2 * GIB
MOST_SECONDS = 180.0
EXPERTS = ("denoiser_high", "denoiser_low")
BLOCKS = 40
EXPERT_PARAMETERS = 14_288_491_584
EXPERT_BYTES = 2 * EXPERT_PARAMETERS  # in bfloat16


@dataclass(frozen=True)
class Exported:
    folder: Path
    program: Program
    peak_rss_bytes: int
    processor_seconds: float


@pytest.fixture(scope="module", params=["diffusers", pytest.param("original", marks=pytest.mark.long)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The whole model, both experts, umT5-xxl and the VAE, exported in a worker as a build does."""
    folder = tmp_path_factory.mktemp(request.param)
    make(MODELS["wan2.2-t2v-a14b"], request.param, folder / "model", seed=0, sparse=True)
    checkpoint = open_checkpoint(folder / "model")
    source = {name: checkpoint.root / name for name in checkpoint.files}
    (folder / "out").mkdir()
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = run_in_worker(Export(tuple(checkpoint.components)), {"source": source}, folder / "out", progress=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{request.param}: {peak / GIB:.2f} GiB, {time.perf_counter() - started:.0f} s ({processor:.0f} s of a core)")
    return Exported(folder / "out", Program.read(folder / "out" / FILE), peak, processor)


def test_the_export_is_small_and_quick(exported: Exported) -> None:
    assert exported.peak_rss_bytes <= MOST_RSS
    # The tracer works on one core: this is what it takes where nothing else runs.
    assert 1 < exported.processor_seconds <= MOST_SECONDS


def test_every_block_and_every_parameter_is_there(exported: Exported) -> None:
    for name in EXPERTS:
        weights = exported.program.components[name].weights
        blocks = {int(found[1]) for weight in weights if (found := re.match(r"blocks\.(\d+)\.", weight))}
        assert blocks == set(range(BLOCKS))
        assert sum(math.prod(weight.shape) for weight in weights.values()) == EXPERT_PARAMETERS
        assert sum(weight.length for weight in weights.values()) == EXPERT_BYTES


def test_the_experts_are_two(exported: Exported) -> None:
    high, low = ({weight.file for weight in exported.program.components[name].weights.values()} for name in EXPERTS)
    assert len(high) == len(low) > 1 and not high & low


def test_the_graphs_refer_to_weights_and_hold_none(exported: Exported) -> None:
    for name in EXPERTS:
        component = exported.program.components[name]
        path = exported.folder / component.graphs["step"].file
        assert path.stat().st_size < 2**24
        graph = onnx.load(path, load_external_data=False).graph
        attentions = [node for node in graph.node if node.op_type == "Attention"]
        assert len(attentions) in (0, 2 * BLOCKS)  # one form or the other, in every block
        external = {entry.name for entry in graph.initializer if entry.data_location == onnx.TensorProto.EXTERNAL}
        assert external == component.weights.keys()
