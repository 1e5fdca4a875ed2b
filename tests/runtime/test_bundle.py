"""What a bundle says about running it, and what is refused although its digests are right."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.runtime.errors import BundleError, TargetError, UserError
from wanc.runtime.video_bundle import VideoBundle


def engine(backend: str, target: str, file: str) -> dict[str, str]:
    return {"component": "vae_decoder", "graph": "first", "engine": backend, "target": target, "file": file}


TOPOLOGY: dict[str, Any] = {
    "components": {},
    "engines": [
        engine("tensorrt", "sm80", "engines/a.plan"),
        engine("onnxruntime", "cpu", "engines/a.onnx"),
        engine("onnxruntime", "cpu", "engines/b.onnx"),
    ],
}
RUNTIME: dict[str, Any] = {
    "task": "text-to-video",
    "model": {
        "text_length": 64,
        "boundary": 0.875,
        "train_timesteps": 1000,
        "latent_mean": [0.0, 1.0],
        "latent_std": [1.0, 2.5],
        "spatial_stride": 8,
        "temporal_stride": 4,
    },
    "embedding": "engines/embedding.safetensors",
    "sampling": {
        "solver": "unipc",
        "steps": 20,
        "timesteps": None,
        "shift": 4.0,
        "guidance": {"high": 3.0, "low": 1.0},
        "negative_prompt": "",
        "fps": 16,
    },
    "shapes": [
        {"name": "small", "height": 32, "width": 48, "frames": 9},
        {"name": "large", "height": 64, "width": 96, "frames": 17},
    ],
    "threads": 2,
}


def sealed(root: Path, *, topology: dict[str, Any] = TOPOLOGY, runtime: dict[str, Any] = RUNTIME) -> Path:
    names = ("engines/a.plan", "engines/a.onnx", "engines/b.onnx", "engines/embedding.safetensors", "run.py")
    files = [BundleFile(name, name.encode(), role="engine", media_type="text/plain") for name in names]
    facts = BundleFacts("b", "1.0", 0, "run.py", f"sha256:{'0' * 64}", topology, runtime)
    return seal(root / "bundle", files, facts).path


def changed(document: dict[str, Any], *keys: str | int, value: object) -> dict[str, Any]:
    result = copy.deepcopy(document)
    inner: Any = result
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return result


def test_everything_is_read(tmp_path: Path) -> None:
    bundle = VideoBundle.open(sealed(tmp_path))
    assert bundle.model.latent_std == (1.0, 2.5)
    assert bundle.sampling.guidance_low == 1.0 and bundle.sampling.is_guided
    assert [shape.name for shape in bundle.shapes] == ["small", "large"]
    assert bundle.threads == 2


def test_the_first_engine_that_fits_is_taken(tmp_path: Path) -> None:
    bundle = VideoBundle.open(sealed(tmp_path))
    assert bundle.engines == {("vae_decoder", "first"): bundle.root / "engines/a.onnx"}


def test_a_bundle_for_other_machines_lists_both_sides(tmp_path: Path) -> None:
    topology = changed(TOPOLOGY, "engines", value=TOPOLOGY["engines"][:1])
    with pytest.raises(TargetError) as caught:
        VideoBundle.open(sealed(tmp_path, topology=topology))
    assert "vae_decoder/first" in caught.value.message
    assert "onnxruntime on cpu" in caught.value.message
    assert caught.value.hint == "the bundle holds: tensorrt on sm80"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "engines/absent.onnx", "manifest.json"])
def test_only_files_that_were_verified_are_opened(tmp_path: Path, path: str) -> None:
    topology = changed(TOPOLOGY, "engines", 1, "file", value=path)
    with pytest.raises(BundleError, match=re.escape("which is not a file of the bundle")):
        VideoBundle.open(sealed(tmp_path / "engine", topology=topology))
    embedding = changed(RUNTIME, "embedding", value=path)
    with pytest.raises(BundleError, match=re.escape("which is not a file of the bundle")):
        VideoBundle.open(sealed(tmp_path / "embedding", runtime=embedding))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("model", "text_length"), 0, "runtime.model.text_length must be at least 1, not 0"),
        (("model", "latent_mean"), [0.0, "x"], "runtime.model.latent_mean[1] must be a number, not a string"),
        (("sampling", "shift"), True, "runtime.sampling.shift must be a number, not a boolean"),
        (("sampling", "guidance"), 3.0, "runtime.sampling.guidance must be an object, not a number"),
        (("shapes",), {}, "runtime.shapes must be a list, not an object"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        VideoBundle.open(sealed(tmp_path, runtime=changed(RUNTIME, *keys, value=value)))
    assert caught.value.message == message


def test_a_listed_schedule_replaces_the_steps(tmp_path: Path) -> None:
    runtime = changed(changed(RUNTIME, "sampling", "timesteps", value=[1000, 500]), "sampling", "steps", value=None)
    sampling = VideoBundle.open(sealed(tmp_path, runtime=runtime)).sampling
    assert (sampling.steps, sampling.timesteps) == (None, (1000.0, 500.0))


def test_shapes_by_name_and_frames(tmp_path: Path) -> None:
    bundle = VideoBundle.open(sealed(tmp_path))
    assert bundle.shape(None, None).name == "small"
    assert bundle.latent_shape(bundle.shape("large", None)) == (1, 2, 5, 8, 12)
    assert bundle.latent_shape(bundle.shape("large", 1)) == (1, 2, 1, 8, 12)


def test_an_unknown_shape_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        VideoBundle.open(sealed(tmp_path)).shape("720p", None)
    assert (caught.value.message, caught.value.hint) == (
        "this bundle has no shape '720p'",
        "it has: small, large",
    )


@pytest.mark.parametrize(("frames", "nearest"), [(16, "13 or 17"), (0, "1 or 5"), (-3, "1 or 5"), (2, "1 or 5")])
def test_frames_that_no_latent_decodes_to(tmp_path: Path, frames: int, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        VideoBundle.open(sealed(tmp_path)).shape(None, frames)
    assert caught.value.hint == f"ask for {nearest}"


def test_a_bundle_of_another_task_is_not_one_for_videos(tmp_path: Path) -> None:
    root = sealed(tmp_path, runtime={"task": "graph", "threads": 0})
    with pytest.raises(BundleError) as caught:
        VideoBundle.open(root)
    assert str(caught.value) == f"{root}: the bundle's task is 'graph', not 'text-to-video'"
