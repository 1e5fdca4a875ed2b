"""An engine that is compiled here and executed elsewhere: everything that a bundle has is made of it all the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.builder import Project
from tests.compiler.elsewhere import BuildOnly
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.bundle.engine_stages import EngineStages
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.errors import TargetError
from wanc.runtime.api import open as open_bundle
from wanc.runtime.manifest import Manifest
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.selftest import relative_error
from wanc.runtime.verify import verify


@pytest.fixture(scope="module")
def bundle(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's model, built for that engine through golden record, tables and seal."""
    output = tmp_path_factory.mktemp("build-only")
    store = Store.open(Path(shutil.copytree(project.output / "store", output / "store")))
    with store.session():
        runner = Runner(store, progress=False)
        plan = BuildPlan.of(resolve(project.load(), SourceDigests(store), progress=False))
        stages = plan.engines
        assert stages.tables is not None
        engine = BuildOnly()
        stages = EngineStages(
            stages.targets, replace(stages.assemble, engine=engine), replace(stages.tables, engine=engine)
        )
        plan = replace(plan, engines=stages)
        plan.seal(output / "bundle").run(runner, plan.run(runner.run))
    return output / "bundle"


def tensors(bundle: Path, name: str) -> dict[str, np.ndarray[Any, Any]]:
    return dict(SafetensorsFile(bundle / name).items())


def test_it_is_sealed_with_a_record_of_every_graph(bundle: Path, project: Project) -> None:
    assert verify(bundle).ok
    expected = tensors(bundle, "golden/expected.safetensors")
    built = tensors(project.result.bundle, "golden/expected.safetensors")
    assert expected.keys() == built.keys()
    for name, array in built.items():
        assert relative_error(expected[name], array) <= 1e-5, name


def test_inputs_are_noise_only_where_a_component_begins(bundle: Path, project: Project) -> None:
    """The same for every engine: a later graph gets what the earlier are expected to give."""
    for root in (bundle, project.result.bundle):
        inputs, expected = (tensors(root, f"golden/{name}.safetensors") for name in ("inputs", "expected"))
        for name, array in inputs.items():
            component, _, value = name.split("/", 2)
            givers = [key for key in expected if key.startswith(f"{component}/") and key.endswith(f"/{value}")]
            for giver in givers:
                np.testing.assert_array_equal(array, expected[giver])
        given = {name.split("/")[-1] for name in inputs if name.startswith("denoiser_high/step/")}
        assert given > {"latents"}
        caches = [name for name in inputs if name.startswith("vae_decoder/steady/cache_")]
        assert caches
        for name in caches:
            giver = name.replace("steady/cache_", "first/next_")
            np.testing.assert_array_equal(inputs[name], expected[giver])


def test_text_begins_at_a_prompt(bundle: Path) -> None:
    inputs = tensors(bundle, "golden/inputs.safetensors")
    embeddings, mask = (inputs[f"text_encoder/encode/{name}"] for name in ("embeddings", "mask"))
    assert mask.shape == embeddings.shape[:2] and mask.all()
    table = tensors(bundle, "engines/text_encoder/embedding.safetensors")["embedding"].astype(np.float32)
    for row in embeddings[0]:
        assert (table == row).all(axis=1).any(), "a row of the table"


def test_its_tables_are_the_host_s(bundle: Path, project: Project) -> None:
    for expert in ("denoiser_high", "denoiser_low"):
        name = f"engines/{expert}/time.table.safetensors"
        ours, theirs = tensors(bundle, name), tensors(project.result.bundle, name)
        assert ours.keys() == theirs.keys()
        for key, array in theirs.items():
            assert relative_error(ours[key], array) <= 1e-5


def test_the_report_is_read_from_the_log(bundle: Path) -> None:
    report = json.loads((bundle / "engine_report.json").read_bytes())
    step = report["components"]["denoiser_high"]["step"]
    assert step["fused"]["Attention"] >= 2
    assert step["bytes"] == (bundle / "engines/denoiser_high/step.s0.cpu.bin").stat().st_size


def test_it_is_not_executed_here(bundle: Path) -> None:
    assert {file.path for file in Manifest.read(bundle).files} >= {"engines/denoiser_high/step.s0.cpu.bin"}
    with pytest.raises(TargetError):
        open_bundle(bundle).generate("a", steps=1, frames=1)
