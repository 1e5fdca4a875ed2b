"""What the tests of sealing seal."""

from __future__ import annotations

from pathlib import Path

from wanc.artifacts.seal import BundleFacts, BundleFile

FACTS = BundleFacts(
    name="tiny",
    version="0.1.0",
    created=1_767_225_600,
    entry="run.py",
    recipe_sha256=f"sha256:{'0' * 64}",
    topology={"components": []},
    runtime={"shift": 12.0},
    targets=[{"backend": "cpu"}],
)
CONTENT = {"run.py": b"print()\n", "engines/denoiser/step.onnx": b"graph", "tokenizer/spiece.model": b"tokens"}


def files(content: dict[str, bytes] = CONTENT) -> list[BundleFile]:
    return [BundleFile(path, data, "test", "application/octet-stream") for path, data in content.items()]


def moving(source: Path, path: str = "engines/denoiser/weights.safetensors") -> BundleFile:
    return BundleFile(path, source, "weights", "application/octet-stream", move=True)


def present(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
