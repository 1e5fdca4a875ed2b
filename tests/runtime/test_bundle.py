"""What a bundle says about running it, and what is refused although its digests are right."""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.artifacts.seal import BundleFacts, BundleFile, seal
from wanc.models.graph import concrete
from wanc.runtime import safetensors
from wanc.runtime.errors import BundleError, TargetError, UserError
from wanc.runtime.video_bundle import VideoBundle


def engine(backend: str, target: str, file: str, **changed: Any) -> dict[str, Any]:
    return {
        "component": "vae_decoder",
        "graph": "first",
        "segment": 0,
        "engine": backend,
        "target": target,
        "profile": None,
        "device": target,
        "file": file,
        "inputs": ["latent"],
        "outputs": ["frames", "cache"],
        **changed,
    }


def tensor(name: str, **more: object) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": [1, "rows"], **more}


def taken(name: str, shape: list[int | str], binding: str, per: str, **more: object) -> dict[str, Any]:
    return tensor(name, shape=shape, **{"binding": binding, "per": per, "shape_of": None, **more})


LATENTS: list[int | str] = [1, 2, "frames", "2*rows", "2*columns"]
LATENT = taken("latent", [1, 2, 1, "height", "width"], "chunk", "request")
STEP = {
    "inputs": [
        taken("latents", LATENTS, "step", "request"),
        taken("timestep", [1], "build", "expert"),
        taken("text", [1, 64, 6], "request", "branch"),
    ],
    "outputs": [tensor("velocity", shape=LATENTS, state=None)],
}


def decoded(frames: int) -> list[dict[str, Any]]:
    return [
        tensor("frames", shape=[1, 3, frames, "8*height", "8*width"], state=None),
        tensor("cache", shape=[1, "height"], state="old"),
    ]


COMPONENTS: dict[str, Any] = {
    "text_encoder": {
        "encode": {
            "inputs": [
                taken("embeddings", [1, "tokens", 4], "request", "branch"),
                taken("mask", [1, "tokens"], "request", "branch", dtype="int64"),
            ],
            "outputs": [tensor("hidden", shape=[1, "tokens", 6], state=None)],
        }
    },
    "denoiser_high": {"step": STEP},
    "denoiser_low": {"step": STEP},
    "vae_decoder": {
        "first": {"inputs": [LATENT], "outputs": decoded(1)},
        "steady": {"inputs": [LATENT, taken("old", [1, "height"], "chunk", "request")], "outputs": decoded(4)},
    },
}


def whole(component: str, graph: str) -> dict[str, Any]:
    """The engine of a graph that is not cut."""
    sides = {side: [entry["name"] for entry in COMPONENTS[component][graph][side]] for side in ("inputs", "outputs")}
    return engine("onnxruntime", "cpu", "engines/a.onnx", component=component, graph=graph, **sides)


OTHERS = [
    whole(component, graph)
    for component, graphs in COMPONENTS.items()
    for graph in graphs
    if (component, graph) != ("vae_decoder", "first")
]
TOPOLOGY: dict[str, Any] = {
    "components": COMPONENTS,
    "engines": [
        engine("tensorrt", "sm80", "engines/a.plan"),
        engine("onnxruntime", "cpu", "engines/a.onnx"),
        engine("openvino", "cpu", "engines/b.onnx"),
        *OTHERS,
    ],
}
ONE_GRAPH: dict[str, Any] = {
    "components": {"model": {"main": {"inputs": [], "outputs": [tensor("y", state=None)]}}},
    "engines": [
        engine("onnxruntime", "cpu", "engines/a.onnx", component="model", graph="main", inputs=[], outputs=["y"])
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


def golden(folder: Path, components: dict[str, Any]) -> dict[str, bytes]:
    """The record of these graphs, every size that has a name being 2."""

    def record(side: str) -> bytes:
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for component, graphs in components.items():
            for graph, interface in graphs.items():
                for entry in interface[side]:
                    shape = concrete(tuple(entry["shape"]), defaultdict(lambda: 2))
                    arrays[f"{component}/{graph}/{entry['name']}"] = np.zeros(shape, entry["dtype"])
        safetensors.write(folder / side, arrays)
        return (folder / side).read_bytes()

    folder.mkdir(parents=True, exist_ok=True)
    tolerances = {f"{component}/{graph}": 1e-4 for component, graphs in components.items() for graph in graphs}
    return {
        "golden/inputs.safetensors": record("inputs"),
        "golden/expected.safetensors": record("outputs"),
        "golden/tolerances.json": json.dumps(tolerances).encode(),
    }


def sealed(
    root: Path,
    *,
    topology: dict[str, Any] = TOPOLOGY,
    runtime: dict[str, Any] = RUNTIME,
    requires: tuple[str, ...] = (),
    recorded: dict[str, Any] = COMPONENTS,
) -> Path:
    names = ("engines/a.plan", "engines/a.onnx", "engines/b.onnx", "engines/embedding.safetensors", "run.py")
    content = {**{name: name.encode() for name in names}, **golden(root / "golden", recorded)}
    files = [BundleFile(name, data, role="engine", media_type="text/plain") for name, data in content.items()]
    facts = BundleFacts("b", "1.0", 0, "run.py", f"sha256:{'0' * 64}", topology, runtime, requires=requires)
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
    assert bundle.engines.keys() == {(file["component"], file["graph"]) for file in TOPOLOGY["engines"]}
    assert [file.file for file in bundle.engines["vae_decoder", "first"].files] == ["engines/a.onnx"]


def test_a_bundle_for_other_machines_lists_both_sides(tmp_path: Path) -> None:
    topology = changed(TOPOLOGY, "engines", value=TOPOLOGY["engines"][:1])
    with pytest.raises(TargetError) as caught:
        VideoBundle.open(sealed(tmp_path, topology=topology))
    assert "vae_decoder/first" in caught.value.message
    assert "onnxruntime on cpu" in caught.value.message
    assert caught.value.hint == "the bundle holds: tensorrt on sm80"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (engine("onnxruntime", "cpu", "engines/a.onnx", profile="480p"), "onnxruntime on cpu, for 480p alone"),
        (engine("onnxruntime", "sm80", "engines/a.onnx"), "onnxruntime on sm80"),
        (engine("tensorflow", "cpu", "engines/a.onnx"), "tensorflow on cpu"),
        (engine("onnxruntime", "sm80", "engines/a.onnx", device="a", ranks=["a", "b"]), "onnxruntime on sm80 (a, b)"),
    ],
    ids=["profile", "target", "engine", "ranks"],
)
def test_an_engine_that_fits_in_part_does_not_fit(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(TargetError) as caught:
        VideoBundle.open(sealed(tmp_path, topology={**TOPOLOGY, "engines": [entry]}))
    assert caught.value.hint == f"the bundle holds: {words}"


def cut(**second: str) -> dict[str, Any]:
    """The topology with the graph in two segments."""
    entries = [
        engine("onnxruntime", "cpu", "engines/a.onnx", outputs=["h", "cache"]),
        engine("onnxruntime", "cpu", "engines/b.onnx", segment=1, inputs=["h"], outputs=["frames"], **second),
    ]
    return {**TOPOLOGY, "engines": [*entries, *OTHERS]}


def test_a_graph_in_segments_is_read_where_the_bundle_says_that_there_are_some(tmp_path: Path) -> None:
    bundle = VideoBundle.open(sealed(tmp_path, topology=cut(), requires=("segments/1",)))
    assert [file.file for file in bundle.engines["vae_decoder", "first"].files] == ["engines/a.onnx", "engines/b.onnx"]


def test_a_graph_in_segments_is_refused_where_the_bundle_does_not_say_so(tmp_path: Path) -> None:
    root = sealed(tmp_path, topology=cut())
    with pytest.raises(BundleError) as caught:
        VideoBundle.open(root)
    assert str(caught.value) == (
        f"{root}/manifest.json: vae_decoder/first has 2 segments, which `requires` does not say: it lacks 'segments/1'"
    )


def test_what_a_bundle_requires_has_to_be_known(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="requires names 'segments/2', which this version does not know"):
        VideoBundle.open(sealed(tmp_path, topology=cut(), requires=("segments/1", "segments/2")))


def test_segments_may_lie_on_several_devices(tmp_path: Path) -> None:
    bundle = VideoBundle.open(sealed(tmp_path, topology=cut(device="cpu.1"), requires=("segments/1",)))
    assert [file.device for file in bundle.engines["vae_decoder", "first"].files] == ["cpu", "cpu.1"]


def test_segments_that_do_not_make_up_the_graph_are_refused(tmp_path: Path) -> None:
    topology = changed(cut(), "engines", 1, "inputs", value=["other"])
    with pytest.raises(BundleError, match="vae_decoder/first: segment 1 takes 'other', which nothing before it gives"):
        VideoBundle.open(sealed(tmp_path, topology=topology, requires=("segments/1",)))
    with pytest.raises(BundleError, match=r"topology.engines\[1\].segment repeats segment 0 of vae_decoder/first"):
        VideoBundle.open(sealed(tmp_path / "b", topology=changed(cut(), "engines", 1, "segment", value=0)))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("inputs", 0, "binding"), "sometimes", "binding is 'sometimes', not one of build, request, chunk, step"),
        (("inputs", 0, "per"), "video", "per is 'video', not one of branch, expert, request"),
        (("inputs", 0, "range"), [0], "range must be 2 integers"),
        (("inputs", 0, "range"), [0, 1.5], "range must be 2 integers"),
        (("inputs", 0, "range"), "all", "range must be a list, not a string"),
        (("outputs", 1, "dtype"), "bfloat16", "dtype is 'bfloat16', not one of bool, int8"),
        (("outputs", 1, "state"), 1, "state must be a string, not a number"),
    ],
)
def test_an_interface_that_makes_no_sense_is_refused(
    tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str
) -> None:
    topology = changed(TOPOLOGY, "components", "vae_decoder", "first", *keys, value=value)
    with pytest.raises(BundleError, match=re.escape(message)):
        VideoBundle.open(sealed(tmp_path, topology=topology))


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
    runtime = {"task": "graph", "threads": 0}
    root = sealed(tmp_path, topology=ONE_GRAPH, runtime=runtime, recorded=ONE_GRAPH["components"])
    with pytest.raises(BundleError) as caught:
        VideoBundle.open(root)
    assert str(caught.value) == f"{root}: the bundle's task is 'graph', not 'text-to-video'"
