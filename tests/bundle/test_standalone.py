"""A bundle runs with what its requirements.txt names, and with nothing else: no torch, no diffusers, no wanc."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wanc.runtime.verify import verify

PROMPTS = {"english": "A red circle moves to the left.", "chinese": "一个蓝色的正方形向上移动。"}
SHORT = ("--frames", "5", "--steps", "2")
FORBIDDEN = ["torch", "diffusers", "transformers", "wanc", "onnx", "onnx_ir", "pydantic", "typer"]

# The superuser may write anywhere, which would make a read-only folder prove nothing.
WITHOUT_PRIVILEGE = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Deployed:
    """A Python that has only what the bundle asks for, working in a folder of its own."""

    python: tuple[str, ...]
    site: Path
    cwd: Path

    def run(self, *arguments: object, wrapper: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        return subprocess.run(
            [*wrapper, *self.python, *map(str, arguments)],
            cwd=self.cwd,
            env={**environment, "PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def json(self, *arguments: object, wrapper: Sequence[str] = ()) -> dict:
        finished = self.run(*arguments, "--json", wrapper=wrapper)
        assert (finished.returncode, finished.stderr) == (0, "")
        return json.loads(finished.stdout)


def closure(requirements: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that these requirements lead to, by normalised name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending = [(Requirement(line), "") for line in requirements]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
        assert requirement.specifier.contains(found[name].version, prereleases=True), requirement
        needs = [Requirement(line) for line in found[name].requires or ()]
        for wanted in ("", *requirement.extras):
            pending += [
                (need, wanted) for need in needs if bool(need.marker and "extra" in str(need.marker)) == bool(wanted)
            ]
    return found


@pytest.fixture(scope="module")
def deployed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    site, cwd = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("cwd")
    for distribution in closure((tiny_bundle / "requirements.txt").read_text().splitlines()).values():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    # -S: no site-packages, -P: nothing of the folder that run.py lies in.
    return Deployed((sys.executable, "-S", "-P"), site, cwd)


@pytest.fixture(autouse=True)
def untouched(tiny_bundle: Path, deployed: Deployed):
    """Whatever a test does, the bundle is afterwards what it was, down to its times."""
    before = state(tiny_bundle)
    yield
    assert state(tiny_bundle) == before
    assert verify(tiny_bundle).ok
    for path in deployed.cwd.iterdir():
        path.unlink()


def state(root: Path) -> dict[str, tuple[int, int, int]]:
    entries = {path: path.lstat() for path in (root, *root.rglob("*"))}
    return {str(path): (status.st_size, status.st_mtime_ns, status.st_mode) for path, status in entries.items()}


def test_the_requirements_are_few_and_exact(tiny_bundle: Path) -> None:
    lines = (tiny_bundle / "requirements.txt").read_text().splitlines()
    installed = [f"{name}=={importlib.metadata.version(name)}" for name in ("av", "ftfy", "numpy", "onnxruntime")]
    assert lines == [*installed, f"tokenizers=={importlib.metadata.version('tokenizers')}"]


def test_nothing_else_can_be_imported_there(deployed: Deployed) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {FORBIDDEN} if find_spec(name)])"
    finished = deployed.run("-c", code)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "[]\n", "")
    finished = deployed.run("-c", "import numpy, onnxruntime; print(numpy.__file__)")
    assert finished.stdout.startswith(str(deployed.site))


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_it_makes_a_video(tiny_bundle: Path, deployed: Deployed, prompt: str) -> None:
    report = deployed.json(tiny_bundle / "run.py", "--prompt", prompt, *SHORT, "-o", "out.mp4")
    assert (report["video"], report["frames"]) == ("out.mp4", 5)
    assert (deployed.cwd / "out.mp4").stat().st_size > 1000
    assert os.listdir(deployed.cwd) == ["out.mp4"]


def test_it_makes_the_same_video_as_wanc_run(tiny_bundle: Path, deployed: Deployed) -> None:
    from wanc.runtime.video_task import run_video

    deployed.json(tiny_bundle / "run.py", "--prompt", PROMPTS["chinese"], *SHORT, "--seed", "5", "-o", "out.mp4")
    ours = deployed.cwd / "ours.mp4"
    run_video(tiny_bundle, ours, prompt=PROMPTS["chinese"], seed=5, frames=5, steps=2)
    assert (deployed.cwd / "out.mp4").read_bytes() == ours.read_bytes()


def test_it_tests_itself(tiny_bundle: Path, deployed: Deployed) -> None:
    report = deployed.json(tiny_bundle / "run.py", "--selftest")
    assert report["ok"] is True
    assert len(report["checks"]) == 2 + 4 + 4 + 1 + 2, (
        "tokenizer and embedding, two experts in four graphs each, text encoder, decoder"
    )


def test_it_runs_from_within_and_by_a_relative_path(tiny_bundle: Path, deployed: Deployed) -> None:
    video = deployed.cwd / "out.mp4"
    within = Deployed(deployed.python, deployed.site, tiny_bundle)
    assert within.json("run.py", "--prompt", "a", *SHORT, "-o", video)["frames"] == 5
    script = os.path.relpath(tiny_bundle / "run.py", deployed.cwd)
    assert deployed.json(script, "--prompt", "a", *SHORT, "-o", video)["frames"] == 5


def test_it_runs_without_the_flags(tiny_bundle: Path, deployed: Deployed) -> None:
    """As people call it: the script's own folder on the path. The interpreter's own site-packages stay out."""
    plain = Deployed((sys.executable, "-S"), deployed.site, deployed.cwd)
    assert plain.json(tiny_bundle / "run.py", "--prompt", "a", *SHORT, "-o", "out.mp4")["frames"] == 5


def test_a_read_only_bundle_runs(own_copy: Path, deployed: Deployed) -> None:
    paths = [own_copy, *own_copy.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    wrapper = (sys.executable, "-S", "-c", WITHOUT_PRIVILEGE)
    try:
        touched = deployed.run("-c", f"open({str(own_copy / 'new')!r}, 'w')", wrapper=wrapper)
        assert "PermissionError" in touched.stderr, "the folder is not read-only"
        report = deployed.json(own_copy / "run.py", "--prompt", "a", *SHORT, "-o", "out.mp4", wrapper=wrapper)
        assert report["frames"] == 5
        assert deployed.json(own_copy / "run.py", "--selftest", wrapper=wrapper)["ok"] is True
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def without(deployed: Deployed, folder: Path, name: str) -> Deployed:
    """The same, without what is installed under this name."""
    shutil.copytree(deployed.site, folder / "site", symlinks=True)
    for path in (folder / "site").glob(f"{name}*"):
        path.unlink()
    return replace(deployed, site=folder / "site")


@pytest.mark.parametrize("name", ["numpy", "onnxruntime", "av", "tokenizers", "ftfy"])
def test_a_missing_package_is_told(tiny_bundle: Path, deployed: Deployed, tmp_path: Path, name: str) -> None:
    finished = without(deployed, tmp_path, name).run(
        tiny_bundle / "run.py", "--prompt", PROMPTS["chinese"], *SHORT, "-o", "out.mp4"
    )
    built_with = importlib.metadata.version(name)
    assert (finished.returncode, finished.stdout) == (69, "")
    assert finished.stderr.startswith("error: ") and "Traceback" not in finished.stderr
    hint = f"hint: {name} is missing here, and the bundle was built with {built_with}: pip install -r requirements.txt"
    assert hint in finished.stderr


def test_another_engine_version_is_told(tiny_bundle: Path, deployed: Deployed, tmp_path: Path) -> None:
    """Where the engine fails, and by the self-test where it does not."""
    other = without(deployed, tmp_path, "onnxruntime")
    (other.site / "onnxruntime").mkdir()
    (other.site / "onnxruntime/__init__.py").write_text("class SessionOptions: pass\n")
    (other.site / "onnxruntime-1.5.2.dist-info").mkdir()
    (other.site / "onnxruntime-1.5.2.dist-info/METADATA").write_text("Name: onnxruntime\nVersion: 1.5.2\n")
    built_with = importlib.metadata.version("onnxruntime")
    finished = other.run(tiny_bundle / "run.py", "--prompt", "a", *SHORT, "-o", "out.mp4")
    assert (finished.returncode, finished.stdout) == (69, "")
    assert finished.stderr.splitlines()[-1] == (
        f"hint: onnxruntime is 1.5.2 here, and the bundle was built with {built_with}: "
        "pip install -r requirements.txt, which the bundle has"
    )
    shutil.rmtree(other.site / "onnxruntime")
    (other.site / "onnxruntime").symlink_to((deployed.site / "onnxruntime").resolve())
    report = other.json(tiny_bundle / "run.py", "--selftest")
    assert report["ok"] is True
    assert report["packages"] == [f"onnxruntime is 1.5.2 here, and the bundle was built with {built_with}"]


def test_an_old_python_is_told(tiny_bundle: Path) -> None:
    """What an older one parses before it is told is Python to it, and it is told before anything else is executed."""
    source = (tiny_bundle / "run.py").read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    (first,) = (node for node in tree.body if isinstance(node, ast.If) and "version_info" in ast.unparse(node.body[0]))
    assert all(isinstance(node, (ast.Expr, ast.Import)) for node in tree.body[: tree.body.index(first)])
    old = f"import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(compile({source!r}, 'run.py', 'exec'))"
    finished = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False, timeout=60)
    assert (finished.returncode, finished.stderr) == (
        69,
        "error: a bundle runs with Python 3.11 or newer, and this is 3.9\n",
    )


@pytest.mark.slow
def test_it_runs_in_a_fresh_virtual_environment(tiny_bundle: Path, deployed: Deployed, tmp_path: Path) -> None:
    """The README's road for a deploy team, with pip and the network."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    requirements = tiny_bundle / "requirements.txt"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    subprocess.run(install, check=True, timeout=600)
    fresh = Deployed((str(python),), tmp_path / "none", deployed.cwd)
    for name, prompt in PROMPTS.items():
        report = fresh.json(tiny_bundle / "run.py", "--prompt", prompt, *SHORT, "-o", f"{name}.mp4")
        assert report["frames"] == 5
    assert fresh.json(tiny_bundle / "run.py", "--selftest")["ok"] is True
