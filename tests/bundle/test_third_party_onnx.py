"""Models that others have trained and published as ONNX files, through the `onnx:` source, against their own libraries.

silero-vad keeps a state from chunk to chunk and decides by nested Ifs; rapidocr takes images and lines of any size.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.execute import run_selftest
from wanc.runtime.graph_task import run_graph

Arrays = dict[str, NDArray[Any]]
# Both sides are onnxruntime in float32 on one machine; 1e-4 is what the project promises.
TOLERANCE = 1e-4

RECIPES = {
    "vad": ("silero_vad", "data/silero_vad.onnx", {"input_0": 1, "input_1": 576, "state_1": 1}, {"sr": 16000}),
    "detection": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_det_infer.onnx",
        {f"p2o_DynamicDimension_{axis}": size for axis, size in enumerate((1, 64, 96))},
        {},
    ),
    "recognition": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_rec_infer.onnx",
        {"p2o_DynamicDimension_0": 2, "x_2": 48, "p2o_DynamicDimension_1": 160},
        {},
    ),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("third-party")
    built: dict[str, Path] = {}
    for name, (package, file, example, values) in RECIPES.items():
        described = {"onnx": str(files(package) / file), "example": example, "values": values}
        (folder / f"{name}.yaml").write_text(f"wanc: 1\nname: {name}\nmodel: {json.dumps(described)}\n")
        (loaded,) = load(folder / f"{name}.yaml")
        built[name] = build(loaded, folder / "out", progress=False).bundle
    return built


def run(bundle: Path, folder: Path, **inputs: NDArray[Any]) -> Arrays:
    np.savez(folder / "in.npz", **inputs)
    run_graph(bundle, folder / "out.npz", inputs=folder / "in.npz", threads=1)
    with np.load(folder / "out.npz") as file:
        return {name: file[name] for name in file.files}


def assert_close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", RECIPES)
def test_the_bundle_tests_itself(bundles: dict[str, Path], name: str) -> None:
    report = run_selftest(bundles[name], threads=1)
    assert report.ok
    assert [check.graph for check in report.checks] == ["model/main"]


@pytest.fixture(scope="module")
def detector() -> Generator[Any]:
    """silero-vad's own wrapper. Its package sets PyTorch to one thread for good."""
    import torch

    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    yield load_silero_vad(onnx=True)
    torch.set_num_threads(threads)


def sound(rate: int, samples: int) -> NDArray[np.float32]:
    """Silence, then something like a vowel: a pulse train of 120 Hz with its overtones, and a little noise."""
    time = np.arange(samples) / rate
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    voiced = np.where(time > samples / rate / 3, 0.3 * vowel, 0)
    return (voiced + 0.01 * np.random.default_rng(0).normal(size=samples)).astype(np.float32)


@pytest.mark.parametrize(("rate", "chunk", "context"), [(16000, 512, 64), (8000, 256, 32)])
def test_speech_is_heard_chunk_by_chunk_as_the_library_hears_it(
    bundles: dict[str, Path], detector: Any, tmp_path: Path, rate: int, chunk: int, context: int
) -> None:
    import torch

    detector.reset_states()
    audio = sound(rate, 12 * chunk)
    state = np.zeros((2, 1, 128), np.float32)
    previous = np.zeros((1, context), np.float32)
    heard: list[float] = []
    for piece in np.split(audio, 12):
        expected = detector(torch.from_numpy(piece), rate)
        with_context = np.concatenate([previous, piece[None]], axis=1)
        outputs = run(bundles["vad"], tmp_path, input=with_context, state=state, sr=np.array(rate))
        assert_close(outputs["output"], expected.numpy())
        assert_close(outputs["stateN"], detector._state.numpy())
        state, previous = outputs["stateN"], with_context[:, -context:]
        heard.append(float(outputs["output"][0, 0]))
    assert max(heard) - min(heard) > 0.05, "the sound has made no difference"


def test_several_sounds_at_once(bundles: dict[str, Path], detector: Any, tmp_path: Path) -> None:
    import torch

    detector.reset_states()
    batch = np.stack([sound(16000, 512), sound(16000, 1024)[512:], np.zeros(512, np.float32)])
    expected = detector(torch.from_numpy(batch), 16000).numpy()
    with_context = np.pad(batch, ((0, 0), (64, 0)))
    state = np.zeros((2, 3, 128), np.float32)
    outputs = run(bundles["vad"], tmp_path, input=with_context, state=state, sr=np.array(16000))
    assert_close(outputs["output"], expected)


@pytest.fixture(scope="module")
def reader() -> Any:
    """rapidocr's whole pipeline: preparation, detection, recognition."""
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR()


def page(height: int, width: int, *lines: str) -> NDArray[np.uint8]:
    """Lines of black text on white."""
    image = np.full((height, width, 3), 255, np.uint8)
    for index, line in enumerate(lines):
        cv2.putText(image, line, (20, 60 * (index + 1)), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
    return image


PAGES = {
    "one line": (page(100, 300, "CIRCLE"), ["CIRCLE"]),
    "three lines": (page(260, 640, "A RED CIRCLE", "MOVES", "TO THE LEFT"), ["A RED CIRCLE", "MOVES", "TO THE LEFT"]),
}


@pytest.mark.parametrize(("image", "text"), PAGES.values(), ids=PAGES)
def test_pages_are_read_as_the_library_reads_them(
    bundles: dict[str, Path],
    reader: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: NDArray[np.uint8],
    text: list[str],
) -> None:
    """The library prepares its inputs and reads its outputs; each of its sessions' calls is made by the bundle too."""
    shapes: dict[str, set[tuple[int, ...]]] = {"detection": set(), "recognition": set()}

    def both(name: str, session: Any) -> Any:
        def call(array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            expected = session(array)
            (actual,) = run(bundles[name], tmp_path, x=array).values()
            assert_close(actual, expected[0])
            shapes[name].add(array.shape)
            return [actual]

        return call

    monkeypatch.setattr(reader.text_det, "infer", both("detection", reader.text_det.infer))
    monkeypatch.setattr(reader.text_rec, "session", both("recognition", reader.text_rec.session))
    found, _ = reader(image)
    assert [line for _, line, _ in found] == text
    assert all(shapes.values())


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 3, 96, 160), (1, 3, 320, 224)])
def test_images_of_any_size(bundles: dict[str, Path], reader: Any, tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    (actual,) = run(bundles["detection"], tmp_path, x=image).values()
    assert_close(actual, reader.text_det.infer(image)[0])
