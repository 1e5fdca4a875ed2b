"""What the README says in numbers: of the bundle what is measured here, of speed what the committed results say."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest

from .conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
WORDS = " ".join(README.split())
BENCH, DOCS = ROOT / "bench/results", ROOT / "docs/results"
FEW_PERCENT = 0.05
"""By which a size may differ from what is said of it: a change of code changes a bundle by as much."""
EQUAL = 2e-6
"""Errors below this are those of float32 itself."""


def said(pattern: str) -> tuple[str, ...]:
    """What the README says at its only place that looks so."""
    (found,) = re.findall(pattern, WORDS)
    return found if isinstance(found, tuple) else (found,)


def contenders(name: str) -> Mapping[str, Mapping[str, Any]]:
    report = json.loads((BENCH / f"{name}.json").read_bytes())
    return {entry["name"]: entry for entry in report["contenders"]}


def rows(link: str) -> list[str]:
    """The cells behind the first one of the row that links to a report."""
    (row,) = [line for line in README.splitlines() if f"(bench/results/{link}.md)" in line and line.startswith("|")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


# The bundle


def test_the_bundle_is_as_large_as_is_said(tiny_bundle: Path) -> None:
    files = Manifest.read(tiny_bundle).files
    (mebibytes,) = said(r"from a bundle of (\d+) MiB")
    assert int(mebibytes) == pytest.approx(sum(file.size for file in files) / 2**20, rel=FEW_PERCENT)
    (count,) = said(r"The bundle stands alone: (\d+) files")
    assert int(count) == pytest.approx(len(files), rel=2 * FEW_PERCENT)


def test_it_makes_what_is_said_and_needs_no_more(tiny_bundle: Path, tiny_recipe: Path) -> None:
    shapes = load(tiny_recipe)[0].recipe.shapes or ()
    (frames,) = {shape.frames for shape in shapes}
    sizes = " or ".join(f"{shape.width}×{shape.height}" for shape in shapes)
    assert said(r"for (\d+) frames of (.*?) pixels") == (str(frames), sizes)
    (named,) = said(r"nothing of PyTorch is needed, but (.*?), in the versions that it names")
    needed = [line.partition("==")[0] for line in (tiny_bundle / "requirements.txt").read_text().split()]
    assert re.findall(r"`([\w-]+)`", named) == needed


def test_the_model_is_as_large_as_is_said() -> None:
    (mebibytes,) = said(r"a trained two-expert Wan2\.2 model of (\d+) MiB")
    size = sum(path.stat().st_size for path in (ROOT / "models/tiny-wan").rglob("*") if path.is_file())
    assert int(mebibytes) == pytest.approx(size / 2**20, rel=FEW_PERCENT)


def test_a_rebuild_with_nothing_to_do_takes_as_long_as_is_said(tiny_recipe: Path, tiny_bundle: Path) -> None:
    """In seconds of a processor, and within twice as many: others slow it down who share its caches."""
    assert "a rebuild with nothing to do takes under a second and loads no PyTorch" in WORDS
    command = [sys.executable, "-m", "wanc", "build", tiny_recipe, "-o", tiny_bundle.parents[1], "-q"]

    def spent() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(spent() for _ in range(2)) < 2.0


# Speed


def bf16(entry: Mapping[str, Any]) -> str:
    return f"{entry['median']:.2f}, error {100 * entry['rel_error']:.1f} %"


@pytest.mark.parametrize("name", ["step-1536x4-2240", "step-1536x4-256", "step-2048x2-960"])
def test_steps_take_what_was_measured(name: str) -> None:
    found = contenders(name)
    ours = min(found["wanc onnxruntime"]["median"], found["wanc openvino"]["median"])
    exact = [entry for entry in found.values() if entry["rel_error"] < EQUAL and not entry["name"].startswith("wanc ")]
    peer = min(exact, key=lambda entry: entry["median"])
    assert rows(name) == [
        f"{ours:.2f}",
        f"{peer['median']:.2f}, {peer['name'].removesuffix(' fp32')}",
        bf16(found["wanc openvino bf16"]),
        bf16(found["OpenVINO bf16"]),
        bf16(found["PyTorch autocast bf16"]),
    ]


@pytest.mark.parametrize(("name", "digits"), [("video-tiny-wan", 2), ("video-wan-1.3b-shape", 1)])
def test_videos_take_what_was_measured(name: str, digits: int) -> None:
    found = contenders(name)
    exact = min((found["wanc onnxruntime"], found["wanc openvino"]), key=lambda entry: entry["median"])
    ours = [
        f"{entry['median']:.{digits}f}, {entry['psnr_db']:.0f} dB" for entry in (exact, found["wanc openvino bf16"])
    ]
    assert rows(name) == [f"{found['diffusers WanPipeline, eager fp32']['median']:.{digits}f}", *ours]


@pytest.mark.parametrize(("name", "digits"), [("video-tiny-wan-int8", 2), ("video-wan-1.3b-shape-int8", 1)])
def test_videos_in_int8_take_what_was_measured(name: str, digits: int) -> None:
    found = contenders(name)
    others = ("diffusers WanPipeline, autocast bf16", "wanc openvino bf16", "wanc openvino bf16, int8")
    assert rows(name) == [
        f"{found['diffusers WanPipeline, eager fp32']['median']:.{digits}f}",
        *(
            f"{entry['median']:.{digits}f}, {entry['floors']:.0f} floors, {entry['psnr_db']:.0f} dB"
            for entry in (found[other] for other in others)
        ),
    ]


INTEGERS = {
    "wanc on OpenVINO, attention in bf16": "wanc openvino int8 bf16",
    "NNCF on OpenVINO, bf16 hint": "OpenVINO + NNCF INT8, bf16",
    "NNCF on OpenVINO": "OpenVINO + NNCF INT8",
    "wanc on OpenVINO, the rest in fp32": "wanc openvino int8",
    "wanc on ONNX Runtime, the rest in fp32": "wanc onnxruntime int8",
    "ONNX Runtime's dynamic quantisation": "ONNX Runtime, dynamic INT8",
}
"""What the README calls the contenders, fastest first."""


def test_integers_take_what_was_measured() -> None:
    found = contenders("int8-1536x4-2240")
    lines = [
        f"| {shown} | {found[name]['median']:.2f} | {100 * found[name]['rel_error']:.1f} % |"
        for shown, name in INTEGERS.items()
    ]
    assert "\n".join(lines) in README
    kept = found["OpenVINO + NNCF INT8, ends in float"]
    assert f"an error of {100 * kept['rel_error']:.1f} % and takes {kept['median']:.2f} s" in WORDS


def test_what_fusing_brings_is_what_was_measured() -> None:
    found = contenders("step-1536x4-2240")
    times = [found[f"wanc {engine}, not fused"]["median"] / found[f"wanc {engine}"]["median"] for engine in ENGINES]
    assert f"({times[0]:.2f}× on ONNX Runtime, {times[1]:.2f}× on OpenVINO, against the graphs as exported)" in WORDS


ENGINES = ("onnxruntime", "openvino")


def test_many_prompts_take_what_was_measured() -> None:
    report = json.loads((BENCH / "prompts-tiny-wan.json").read_bytes())
    assert f"tiny-wan | {report['ratio']:.2f} of the time |" in WORDS


def test_quantisation_and_training_gave_what_is_said() -> None:
    bundles = {
        entry["bundle"]: entry for entry in json.loads((DOCS / "quantization-tiny-wan.json").read_bytes())["bundles"]
    }
    int8 = bundles["tiny-wan-int8"]
    assert f"{int8['psnr_db']:.1f} dB, latent cosine {int8['cosine']:.3f}, every attribute within" in WORDS
    trained = json.loads((DOCS / "qat-tiny-wan.json").read_bytes())
    cuts = [f"−{100 * trained[scheme]['reduction']['final']:.0f} % for {scheme.removesuffix('-weight')}" for scheme in
            ("int4-weight", "int8")]  # fmt: skip
    assert f"error of the final latents {cuts[0]} weights, {cuts[1]}, after 5 minutes" in WORDS


def test_no_table_of_speed_is_left_out() -> None:
    """Every report of a benchmark that is committed has a row, and every row has a report."""
    linked = set(re.findall(r"\(bench/results/([\w.-]+)\.md\)", README))
    assert linked == {path.stem for path in BENCH.glob("*.md")}
