"""Bundles whose digests fit and whose manifest lies: refused when they are opened, by every door, before any engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.compiler.builder import Project
from tests.cost import assert_read_or_refused, limited
from wanc.runtime.api import open as open_bundle
from wanc.runtime.errors import BundleError, UserError
from wanc.runtime.execute import run, run_selftest

from .resealed import Change, both, drop, put, rewrite, rewrite_json, seal_again, without_engines

HUGE = 2**50
HIGH = ("topology", "components", "denoiser_high")
FIRST = ("topology", "components", "vae_decoder", "first")
STEADY = ("topology", "components", "vae_decoder", "steady")
ENCODE = ("topology", "components", "text_encoder", "encode")
RUNTIME, MODEL, SAMPLING, SHAPE = "runtime", ("runtime", "model"), ("runtime", "sampling"), ("runtime", "shapes", 0)


def entry(manifest: Any, component: str, graph: str) -> Any:
    return manifest["topology"]["components"][component][graph]


def engine_of(manifest: Any, component: str, graph: str) -> Any:
    (found,) = (
        found for found in manifest["topology"]["engines"] if (found["component"], found["graph"]) == (component, graph)
    )
    return found


def taking(graph: str, name: str, **more: Any) -> Change:
    """A graph of the high-noise expert takes one more value, and so says its engine."""

    def change(_: Path, manifest: Any) -> None:
        engine_of(manifest, "denoiser_high", graph)["inputs"].append(name)
        inputs = entry(manifest, "denoiser_high", graph)["inputs"]
        described = {"dtype": "float32", "shape": [1], "binding": "request", "per": "request", "shape_of": None}
        inputs.append({"name": name, **described, **more})

    return change


def output_of(graph: str) -> Callable[[Any], str]:
    return lambda manifest: entry(manifest, "denoiser_high", graph)["outputs"][0]["name"]


def needing_each_other(root: Path, manifest: Any) -> None:
    for graph, other in (("time", "request"), ("request", "time")):
        taking(graph, output_of(other)(manifest))(root, manifest)


def needing_itself(root: Path, manifest: Any) -> None:
    taking("time", output_of("time")(manifest))(root, manifest)


def without_an_output(component: str, graph: str, name: str) -> Change:
    def change(root: Path, manifest: Any) -> None:
        found = entry(manifest, component, graph)
        engine_of(manifest, component, graph)["outputs"].remove(name)
        found["outputs"] = [output for output in found["outputs"] if output["name"] != name]

    return change


def with_input(component: str, graph: str, name: str, **changed: Any) -> Change:
    def change(_: Path, manifest: Any) -> None:
        (found,) = (tensor for tensor in entry(manifest, component, graph)["inputs"] if tensor["name"] == name)
        found.update(changed)

    return change


def with_output(component: str, graph: str, name: str, **changed: Any) -> Change:
    def change(_: Path, manifest: Any) -> None:
        (found,) = (tensor for tensor in entry(manifest, component, graph)["outputs"] if tensor["name"] == name)
        found.update(changed)

    return change


def tiles(tile: Any = (16, 16), stride: Any = (12, 12), shape: str = "wide") -> Change:
    return put(RUNTIME, "decode", value={shape: {"tile": tile, "stride": stride}})


def engine(component: str, graph: str, /, **changed: Any) -> Change:
    return lambda _, manifest: engine_of(manifest, component, graph).update(changed)


def nothing_at_all(root: Path, manifest: Any) -> None:
    manifest["topology"] = {"components": {}, "engines": []}
    for name in ("inputs", "expected"):
        rewrite(f"golden/{name}.safetensors", lambda _: {"x": np.zeros(1)})(root, manifest)
    rewrite_json("golden/tolerances.json", lambda _: {})(root, manifest)


def without_file(path: str) -> Change:
    def change(root: Path, manifest: Any) -> None:
        manifest["files"] = [file for file in manifest["files"] if file["path"] != path]
        (root / path).unlink()
        if not any((root / path).parent.iterdir()):
            (root / path).parent.rmdir()

    return change


def of_another_type(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


TABLE = "engines/denoiser_high/time.table.safetensors"
EMBEDDING = "engines/text_encoder/embedding.safetensors"
INPUTS, EXPECTED, TOLERANCES = "golden/inputs.safetensors", "golden/expected.safetensors", "golden/tolerances.json"
TOKENIZER = "tokenizer/tokenizer.json"

LIES: dict[str, tuple[Change, str]] = {
    "no shapes": (put("runtime", "shapes", value=[]), "runtime.shapes has 0 entries"),
    "two shapes of one name": (
        lambda _, manifest: manifest["runtime"]["shapes"].append(manifest["runtime"]["shapes"][0]),
        "runtime.shapes has two of one name",
    ),
    "a name that moves the cursor": (put(*SHAPE, "name", value="\x1b[2J"), r"runtime.shapes[0].name is '\x1b[2J'"),
    "odd height": (put(*SHAPE, "height", value=33), "runtime.shapes[0].height must be a multiple of spatial_stride"),
    "no width": (put(*SHAPE, "width", value=0), "runtime.shapes[0].width must be at least"),
    "frames between two": (put(*SHAPE, "frames", value=4), "runtime.shapes[0].frames must be one more than a multiple"),
    **{
        f"huge {keys[-1]}": (put(*keys, value=HUGE), f"{keys[-1]} must be at most")
        for keys in (
            (*SHAPE, "height"),
            (*SHAPE, "width"),
            (*SHAPE, "frames"),
            (*MODEL, "text_length"),
            (*MODEL, "train_timesteps"),
            (*MODEL, "spatial_stride"),
            (*MODEL, "temporal_stride"),
            (*SAMPLING, "steps"),
            (*SAMPLING, "fps"),
            (RUNTIME, "threads"),
        )
    },
    "other training steps": (put(*MODEL, "train_timesteps", value=999), "train_timesteps must be at least 1000"),
    "a stride of nothing": (put(*MODEL, "spatial_stride", value=0), "spatial_stride must be at least 1"),
    "another stride": (put(*MODEL, "spatial_stride", value=4), "vae_decoder/first gives frames as"),
    "another text length": (put(*MODEL, "text_length", value=15), "denoiser_high/request takes text as"),
    "a boundary beyond noise": (put(*MODEL, "boundary", value=1.5), "runtime.model.boundary must be at most 1"),
    "a boundary below it": (put(*MODEL, "boundary", value=-0.1), "runtime.model.boundary must be at least 0"),
    "short statistics": (
        lambda _, manifest: manifest["runtime"]["model"]["latent_std"].pop(),
        "runtime.model.latent_std has 15 entries, and latent_mean has 16",
    ),
    "statistics of nothing": (
        both(put(*MODEL, "latent_std", value=[]), put(*MODEL, "latent_mean", value=[])),
        "runtime.model.latent_mean has 0 entries",
    ),
    "statistics of other latents": (
        both(put(*MODEL, "latent_std", value=[1.0] * 8), put(*MODEL, "latent_mean", value=[0.0] * 8)),
        "takes latents as",
    ),
    **{
        f"a std of {value:g}": (put(*MODEL, "latent_std", 3, value=value), "runtime.model.latent_std[3] must be at")
        for value in (0.0, -1.0, 1e300)
    },
    "a mean of 1e300": (put(*MODEL, "latent_mean", 0, value=-1e300), "runtime.model.latent_mean[0] must be at least"),
    "an unknown solver": (
        put(*SAMPLING, "solver", value="ddim"),
        "runtime.sampling.solver is 'ddim', not one of dpm++",
    ),
    **{
        f"a guidance of {value:g}": (put(*SAMPLING, "guidance", "high", value=value), "guidance.high must be at")
        for value in (1e308, -3.0, 0.5)
    },
    **{
        f"a shift of {value:g}": (put(*SAMPLING, "shift", value=value), "runtime.sampling.shift must be at")
        for value in (1e300, 0.0, -4.0)
    },
    "a shift that leaves no steps": (
        both(put(*SAMPLING, "shift", value=1e5), put(*SAMPLING, "steps", value=1000)),
        "runtime.sampling.shift makes no schedule",
    ),
    **{
        f"timesteps {words}": (put(*SAMPLING, "timesteps", value=value), said)
        for words, value, said in (
            ("out of order", [500, 1000], "runtime.sampling.timesteps makes no schedule"),
            ("that are none", [], "runtime.sampling.timesteps has 0 entries"),
            ("twice", [500, 500], "runtime.sampling.timesteps makes no schedule"),
            ("beyond training", [1e300, 1.0], "runtime.sampling.timesteps[0] must be at most 1000"),
            ("at zero", [500, 0], "runtime.sampling.timesteps makes no schedule"),
            ("without end", [1.0] * 5000, "runtime.sampling.timesteps has 5000 entries"),
        )
    },
    "a long negative prompt": (
        put(*SAMPLING, "negative_prompt", value="a" * 70_000),
        "runtime.sampling.negative_prompt has 70000 bytes",
    ),
    # Tiles, of pictures of 32 x 48 pixels whose latents are 2 x 2
    "tiles of no shape": (tiles(tile=[16, 16], shape="tall"), "runtime.decode names 'tall', which is no shape"),
    "tiles that are a number": (put(RUNTIME, "decode", value=16), "runtime.decode must be an object"),
    "tiles without a stride": (put(RUNTIME, "decode", value={"wide": {"tile": [16, 16]}}), "stride is missing"),
    "a tile of one side": (tiles(tile=[16]), "runtime.decode.wide.tile must be 2 integers"),
    "a tile of texts": (tiles(tile=["16", "16"]), "runtime.decode.wide.tile must be 2 integers"),
    "a tile of nothing": (tiles(tile=[0, 16]), "runtime.decode.wide.tile is 0 pixels"),
    "a negative tile": (tiles(tile=[16, -16]), "runtime.decode.wide.tile is -16 pixels"),
    "a tile of few latents": (tiles(tile=[6, 16]), "runtime.decode.wide.tile is 6 pixels"),
    "half a latent": (tiles(tile=[16, 17]), "runtime.decode.wide.tile is 17 pixels"),
    "a tile larger than the picture": (tiles(tile=[64, 16]), "runtime.decode.wide.tile is 64 pixels"),
    "a huge tile": (tiles(tile=[HUGE, 16]), f"runtime.decode.wide.tile is {HUGE} pixels"),
    "a tile that is the picture": (tiles(tile=[32, 48], stride=[32, 48]), "runtime.decode.wide.tile is the whole"),
    "a stride of no pixels": (tiles(stride=[0, 12]), "runtime.decode.wide.stride is 0 pixels"),
    "tiles that do not overlap": (tiles(stride=[16, 12]), "runtime.decode.wide.stride is 16 pixels"),
    "tiles that are mostly overlap": (tiles(stride=[12, 10]), "runtime.decode.wide.stride is 10 pixels"),
    "a picture that steps over itself": (
        tiles(tile=[32, 16], stride=[30, 12]),
        "runtime.decode.wide.tile is 32 pixels",
    ),
    "a decoder that makes no such tiles": (
        both(tiles(), put(*FIRST, "inputs", 0, "shape", value=[1, 16, 1, 16, 24])),
        "vae_decoder/first takes latent as float32 [1, 16, 1, 16, 24], and is given",
    ),
    "an unknown task": (put("runtime", "task", value="image"), "runtime.task is 'image', not one of text-to-video"),
    # Components and graphs
    "nothing at all": (nothing_at_all, "there is no engine for text_encoder/encode"),
    "no engines": (put("topology", "engines", value=[]), "topology.engines has no engine for denoiser_high/"),
    **{
        f"no {component}": (without_engines(component), f"there is no engine for {component}/")
        for component in ("text_encoder", "denoiser_high", "denoiser_low", "vae_decoder")
    },
    "no step": (without_engines("denoiser_low", "step"), "there is no engine for denoiser_low/step"),
    "no steady": (without_engines("vae_decoder", "steady"), "there is no engine for vae_decoder/steady"),
    "a part that is missing": (without_engines("denoiser_high", "time"), "which no graph of denoiser_high gives"),
    "a cycle": (needing_each_other, "needs what it gives itself: "),
    "a cycle of one": (needing_itself, "denoiser_high/time needs what it gives itself: time → time"),
    "a value that nobody gives": (taking("step", "secret"), "takes secret, which no graph of denoiser_high gives"),
    "the shape of nothing": (taking("step", "s", shape_of="n"), "takes the shape of n, which is no input"),
    "the shape of a shape": (taking("step", "s", shape_of="text"), "takes s as float32 [1], and is given int64 [3]"),
    "latents in a part": (
        taking("time", "latents", binding="step", shape=[1, 16, "f", "h", "w"]),
        "denoiser_high/time takes latents, which are others at every step",
    ),
    "a prompt that is kept for both branches": (
        with_input("denoiser_high", "request", "text", per="request"),
        "denoiser_high/request takes text by request and request, not request, branch",
    ),
    "a timestep that is kept": (
        with_input("denoiser_high", "time", "timestep", binding="request"),
        "denoiser_high/time takes timestep by request and expert, not build, expert",
    ),
    "frames that are none": (without_an_output("vae_decoder", "first", "frames"), "does not give frames"),
    "a velocity that is none": (without_an_output("denoiser_low", "step", "velocity"), "does not give velocity"),
    "a velocity of another shape": (
        with_output("denoiser_low", "step", "velocity", shape=[1, 16, "frames", "2*rows", "columns"]),
        "denoiser_low/step gives velocity as",
    ),
    "a velocity in another format": (
        with_output("denoiser_low", "step", "velocity", dtype="float16"),
        "denoiser_low/step gives velocity as float16",
    ),
    "states that are none": (without_an_output("text_encoder", "encode", "hidden"), "does not give hidden"),
    "a cache that is lost": (put(*FIRST, "outputs", 1, "state", value=None), "which nobody gives it"),
    "a cache that nobody takes": (put(*STEADY, "outputs", 0, "state", value="x"), "does not take x, which it is given"),
    "a cache of another shape": (put(*FIRST, "outputs", 1, "shape", value=[1, 2]), "vae_decoder/steady takes cache"),
    # Interfaces
    "a huge size": (put(*ENCODE, "inputs", 0, "shape", 0, value=HUGE), "must be a size from 0 to 2147483647"),
    "a negative size": (put(*ENCODE, "inputs", 0, "shape", 0, value=-1), "must be a size from 0 to"),
    "many dimensions": (put(*ENCODE, "inputs", 0, "shape", value=[1] * 9), "shape has 9 dimensions"),
    "a size that is no name": (
        put(*ENCODE, "inputs", 0, "shape", 1, value="x*tokens"),
        "shape[1] must be a size, `name` or `2*name`, not 'x*tokens'",
    ),
    "a multiple of nothing": (put(*ENCODE, "inputs", 0, "shape", 1, value="0*tokens"), "must be a size, `name`"),
    "an unknown dtype": (put(*ENCODE, "inputs", 0, "dtype", value="object"), "dtype is 'object', not one of"),
    "a name twice": (put(*ENCODE, "inputs", 1, "name", value="embeddings"), "as another one's of these inputs"),
    "a name that cannot be printed": (put(*ENCODE, "inputs", 1, "name", value="a\nb"), "that can be printed"),
    "an input more": (taking("time", "x"), "takes x, which no graph"),
    # Engine files
    "a huge segment": (engine("vae_decoder", "first", segment=HUGE), "vae_decoder/first: segment 0 is missing"),
    "an engine that takes something else": (engine("vae_decoder", "first", inputs=["x"]), "takes 'x', which nothing"),
    "an engine that gives something else": (
        engine("vae_decoder", "first", outputs=["x"]),
        "no segment gives the output",
    ),
    "an engine that takes less": (engine("vae_decoder", "first", inputs=[]), "does not take the input 'latent'"),
    "an engine that gives more": (
        engine("text_encoder", "encode", outputs=["hidden", "x"]),
        "its one segment gives 'x', which the graph does not",
    ),
    "an engine of no graph": (engine("vae_decoder", "first", graph="last"), "topology.components.vae_decoder.last"),
    # The golden record
    "no golden record": (without_file(INPUTS), "has no golden/inputs.safetensors"),
    "no tolerances": (without_file(TOLERANCES), "has no golden/tolerances.json"),
    "a golden tensor less": (rewrite(EXPECTED, lambda found: dict(list(found.items())[1:])), "is missing"),
    "a golden tensor more": (rewrite(INPUTS, lambda found: {**found, "model/main/x": np.zeros(1)}), "is of no graph"),
    "a golden name that is no text": (
        rewrite(INPUTS, lambda found: {**found, "vae_decoder/first/-ff": np.zeros(1)}),
        "vae_decoder/first/-ff is of no graph",
    ),
    "golden inputs of another shape": (
        rewrite(INPUTS, lambda found: {**found, "vae_decoder/first/latent": np.zeros((1, 16), np.float32)}),
        "vae_decoder/first: the input 'latent' is float32 [1, 16]",
    ),
    "golden outputs of another dtype": (
        rewrite(EXPECTED, lambda found: {name: of_another_type(array) for name, array in found.items()}),
        "is float64, and float32 was expected",
    ),
    **{
        f"a tolerance of {value}": (
            rewrite_json(TOLERANCES, lambda found, value=value: {**found, "vae_decoder/first": value}),
            f"vae_decoder/first must be {said}",
        )
        for value, said in (
            (1e300, "at most 0.1"),
            (-1, "at least"),
            (0, "at least"),
            (0.5, "at most"),
            ("1", "a number"),
        )
    },
    "a tolerance that is missing": (
        rewrite_json(TOLERANCES, lambda found: {key: found[key] for key in found if key != "vae_decoder/first"}),
        "vae_decoder/first is missing",
    ),
    "a tolerance of nothing": (
        rewrite_json(TOLERANCES, lambda found: {**found, "x": 1e-4}),
        "is no graph of the bundle",
    ),
    # Tables, the embedding, the tokenizer
    "a table of other rows": (
        rewrite(TABLE, lambda found: {name: array[..., :1] for name, array in found.items()}),
        "is no table of denoiser_high/time: a row of",
    ),
    "a table in another format": (
        rewrite(TABLE, lambda found: {name: of_another_type(array) for name, array in found.items()}),
        "is F64",
    ),
    "a table of something else": (rewrite(TABLE, lambda _: {"x": np.zeros(1)}), "is no table of denoiser_high/time"),
    "a table that is too long": (
        rewrite(TABLE, lambda found: {name: np.repeat(array, 1001, 0) for name, array in found.items()}),
        "rows, more than the 1000 allowed",
    ),
    "an embedding of another width": (
        rewrite(EMBEDDING, lambda found: {"embedding": found["embedding"][:, :8].astype(np.float16)}),
        "the embedding table has rows of 8, and text_encoder/encode takes 16",
    ),
    "an embedding of fewer tokens": (
        rewrite(EMBEDDING, lambda found: {"embedding": found["embedding"][:10].astype(np.float16)}),
        "and the embedding table 10 rows",
    ),
    "an embedding of nothing": (rewrite(EMBEDDING, lambda _: {"x": np.zeros(1)}), "no tensor embedding"),
    "an embedding that is a script": (put("runtime", "embedding", value="run.py"), "not a sound safetensors file"),
    "no embedding": (drop("runtime", "embedding"), "runtime.embedding is missing"),
    "no tokenizer": (without_file(TOKENIZER), "no tokenizer here"),
    "a tokenizer without an end mark": (
        rewrite_json(TOKENIZER, lambda found: {**found, "post_processor": None}),
        "nothing adds the end mark",
    ),
}


def doors(root: Path, folder: Path) -> dict[str, Callable[[], object]]:
    return {
        "api": lambda: open_bundle(root, threads=1),
        "run": lambda: run(root, folder / "out.mp4", {"prompt": "a", "steps": 1, "frames": 1}, threads=1),
        "selftest": lambda: run_selftest(root, threads=1),
    }


@pytest.fixture(scope="module")
def copy(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(project.result.bundle, tmp_path_factory.mktemp("lies") / "bundle"))


@pytest.fixture
def root(copy: Path, project: Project) -> Iterator[Path]:
    """A small bundle to lie with, which is mended afterwards."""
    yield copy
    for file in project.result.bundle.rglob("*"):
        mended = copy / file.relative_to(project.result.bundle)
        mended.parent.mkdir(exist_ok=True)
        if file.is_file() and (not mended.is_file() or mended.read_bytes() != file.read_bytes()):
            shutil.copy2(file, mended)


def test_without_a_lie_every_door_is_open(root: Path, tmp_path: Path) -> None:
    seal_again(root, lambda *_: None)
    for name, door in doors(root, tmp_path).items():
        assert door() is not None, name


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_by_every_door(lie: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = LIES[lie]
    seal_again(root, change)
    monkeypatch.setattr("wanc.runtime.executor.Session", None)  # no engine is asked for
    found: dict[str, str] = {}
    for name, door in doors(root, tmp_path).items():
        with pytest.raises(BundleError) as caught, limited():
            door()
        assert said in caught.value.message, caught.value.message
        assert caught.value.where is not None and caught.value.where.startswith(str(root))
        found[name] = str(caught.value)
    assert len(set(found.values())) == 1, found
    assert_read_or_refused(doors(root, tmp_path)["selftest"])
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_for_videos_that_claims_to_be_a_graph(root: Path, tmp_path: Path) -> None:
    seal_again(root, put("runtime", "task", value="graph"))
    (tmp_path / "in.npz").write_bytes(b"")
    for door in (lambda: run(root, tmp_path / "out.npz", {"inputs": tmp_path / "in.npz"}), lambda: run_selftest(root)):
        with pytest.raises(BundleError, match="the task 'graph' has the graph model/main and no other"):
            door()


@pytest.mark.parametrize("arguments", [("--prompt", "a", "-o", "out.mp4"), ("--selftest",)])
def test_a_lie_of_a_large_bundle_ends_its_own_run_py(
    own_copy: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    seal_again(own_copy, needing_each_other)
    (tmp_path / "cwd").mkdir()
    command = [sys.executable, str(own_copy / "run.py"), *arguments]
    finished = subprocess.run(command, cwd=tmp_path / "cwd", capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stdout) == (65, "")
    assert finished.stderr.startswith(f"error: {own_copy}/manifest.json: denoiser_high/")
    assert "needs what it gives itself" in finished.stderr and finished.stderr.count("\n") == 1
    assert list((tmp_path / "cwd").iterdir()) == []


ODD = st.sampled_from(
    [0, -1, 1, 2, 3, 1e-300, 1e300, 2**31, 2**50, 2**53, "", "x", "2*rows", "0*x", "\x00", None, True, [], {}, [[]]]
)


@settings(
    derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_other_value_in_a_manifest(data: st.DataObject, root: Path, project: Project) -> None:
    """Whatever it says, a bundle gives a video or a reason."""
    document = json.loads((project.result.bundle / "manifest.json").read_bytes())
    place = document[data.draw(st.sampled_from(["runtime", "topology", "topology"]))]
    for _ in range(data.draw(st.integers(0, 7))):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        inner = place[data.draw(st.sampled_from(keys))]
        if not (isinstance(inner, dict | list) and inner):
            break
        place = inner
    key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    match data.draw(st.sampled_from(["odd", "odd", "odd", "gone", "twice"])):
        case "gone":
            del place[key]
        case "twice" if isinstance(place, list):
            place.append(place[key])
        case _:
            place[key] = data.draw(ODD)
    (root / "manifest.json").write_text(json.dumps(document))
    try:
        video = open_bundle(root, threads=1).generate("a", frames=1, steps=1).frames
    except UserError as error:
        assert error.message
    else:
        assert video.dtype == np.uint8
