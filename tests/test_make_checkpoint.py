"""Checkpoints made to order: deterministic, readable by their own libraries, never half there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open

from scripts import make_checkpoint
from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from tests.conftest import ROOT
from wanc.errors import OutputError, render
from wanc.models.wan.checkpoint import open_checkpoint

LAYOUTS = ("diffusers", "original")
TINY = MODELS["tiny"]
GIB = 2**30


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_seed_is_one_checkpoint(tmp_path: Path, layout: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(TINY, layout, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other = contents(tmp_path / "c")
    assert other.keys() == contents(tmp_path / "a").keys()
    different = {name for name, data in contents(tmp_path / "a").items() if other[name] != data}
    assert different == {name for name in other if name.endswith(".safetensors")}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "a").rglob("*.safetensors"))


def test_every_tensor_has_values_of_its_own(tmp_path: Path) -> None:
    """The two experts above all: they have the same names."""
    make(TINY, "diffusers", tmp_path / "model", seed=1)
    seen: set[bytes] = set()
    count = 0
    for path in sorted((tmp_path / "model").rglob("*.safetensors")):
        with safe_open(path, framework="pt") as reader:
            for name in reader.keys():  # noqa: SIM118 - not a dict
                tensor = reader.get_tensor(name).float()
                assert torch.isfinite(tensor).all() and tensor.std() > 0.01, name
                seen.add(tensor.numpy().tobytes())
                count += 1
    assert len(seen) == count


def test_diffusers_and_transformers_load_it(tmp_path: Path) -> None:
    make(TINY, "diffusers", tmp_path / "model", seed=1)
    pipeline = WanPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.config.boundary_ratio == 0.875
    assert pipeline.scheduler.config.flow_shift == TINY.shift
    assert pipeline.tokenizer.model_max_length == TINY.text_length
    assert pipeline.vae.config.z_dim == 16
    assert not torch.equal(pipeline.transformer.proj_out.weight, pipeline.transformer_2.proj_out.weight)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_are_no_larger_than_asked_for(tmp_path: Path, layout: str) -> None:
    make(TINY, layout, tmp_path / "model", seed=1)
    (index, _) = sorted((tmp_path / "model").rglob("diffusion_pytorch_model.safetensors.index.json"))
    located = json.loads(index.read_text())
    shards = [index.parent / name for name in sorted(set(located["weight_map"].values()))]
    sizes = [path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little") for path in shards]
    assert len(shards) == 3 and max(sizes) <= TINY.shard_bytes
    assert sum(sizes) == located["metadata"]["total_size"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_cuts_denoisers_and_text_encoder(tmp_path: Path, layout: str) -> None:
    make(TINY.with_layers(1), layout, tmp_path / "model", seed=1)
    components = open_checkpoint(tmp_path / "model").components
    layers = {name: component.config.get("num_layers") for name, component in components.items()}
    assert layers == {"text_encoder": 1, "denoiser_high": 1, "denoiser_low": 1, "vae_decoder": None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_checkpoint_has_every_size_and_takes_no_room(tmp_path: Path, name: str, layout: str) -> None:
    root = tmp_path / "model"
    make(MODELS[name], layout, root, seed=1, sparse=True)
    checkpoint = open_checkpoint(root)
    assert checkpoint.text_length == MODELS[name].text_length
    assert set(checkpoint.components) == set(MODELS[name].configs)
    # A file system keeps whole blocks: a tiny model's VAE, with thousands of bytes of header, is the largest.
    assert sum(path.stat().st_blocks * 512 for path in root.rglob("*")) < 2**20
    if name == "wan2.2-t2v-a14b":
        bytes_ = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
        assert 69 * 10**9 < bytes_ < 70 * 10**9  # two experts and umT5-xxl in bfloat16, the VAE in float32


@pytest.mark.slow
def test_memory_stays_far_below_a_shard(tmp_path: Path) -> None:
    """At the width of the 1.3B model, where one tensor of the text encoder alone has 2.1 GB."""
    if psutil.disk_usage(str(tmp_path)).free < 4 * GIB:
        pytest.skip("needs 4 GiB of disk")
    script = (
        "import sys; from pathlib import Path; from scripts import make_checkpoint\n"
        "from wanc.runtime.memory import peak_rss_bytes\n"
        "assert make_checkpoint.main(sys.argv[1:]) == 0; print(peak_rss_bytes())"
    )
    command = ["--config", "wan2.1-t2v-1.3b", "--layers", "1", str(tmp_path / "model")]
    done = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) > 2 * GIB
    assert int(done.stdout.splitlines()[-1]) < GIB // 4


def test_what_stands_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError) as caught:
        make(TINY, "diffusers", tmp_path / "model", seed=1)
    assert render(caught.value) == f"error: {tmp_path}/model: is there already\nhint: name another folder"
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_checkpoint, "write_tensors", full)
    with pytest.raises(OutputError) as caught:
        make(TINY, "original", tmp_path / "model", seed=1)
    assert caught.value.exit_code == 74
    assert os.listdir(tmp_path) == []


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanc.artifacts.files.free_bytes", lambda _: 10**9)
    monkeypatch.setattr(make_checkpoint, "write_tensors", lambda *_: pytest.fail("something was written"))
    with pytest.raises(OutputError) as caught:
        make(MODELS["wan2.1-t2v-1.3b"], "diffusers", tmp_path / "model", seed=1)
    assert "1000000000 bytes free" in caught.value.message
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("start", [["-m", "scripts.make_checkpoint"], ["scripts/make_checkpoint.py"]])
def test_the_command_line(tmp_path: Path, start: list[str]) -> None:
    options = ["--config", "tiny", "--layers", "1", "--seed", "3", "--layout", "original", "--sparse"]
    done = subprocess.run(
        [sys.executable, *start, *options, str(tmp_path / "a" / "model")], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/a/model\n", "")
    assert open_checkpoint(tmp_path / "a" / "model").layout == "original"


def test_the_command_line_refuses_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_checkpoint.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: is there already\nhint: name another folder\n"
    for arguments in (["--layers", "0"], ["--layers", "x"], ["--config", "wan3"], []):
        with pytest.raises(SystemExit) as stop:
            make_checkpoint.main([*arguments, str(tmp_path / "model")] if arguments else [])
        assert stop.value.code == 2


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_checkpoint.main(["--help"])
    assert "python -m scripts.make_checkpoint --config wan2.2-t2v-a14b" in capsys.readouterr().out
