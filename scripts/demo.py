"""Builds tiny-wan's bundle and runs it, in a process of its own, on an English and a Chinese prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Path("recipes/tiny-wan.yaml")
VIDEOS = Path("artifacts/demo")
PROMPTS = {
    "english": "A red circle moves to the left.",
    "chinese": "一个蓝色的正方形向上移动。",
}


def main() -> None:
    """Build, run twice, and say where everything is and how long it took."""
    (ROOT / VIDEOS).mkdir(parents=True, exist_ok=True)
    build = _json("-m", "wanc", "build", str(RECIPE), "--json", saying=f"building {RECIPE}")
    for stage in build["stages"]:
        print(f"  {stage['label']:<24} {'cached' if stage['cached'] else format(stage['seconds'], '.1f') + ' s'}")
    videos = [_video(name, prompt, build["bundle"]) for name, prompt in PROMPTS.items()]
    print(f"bundle: {build['bundle']}  {build['id']}")
    for video in videos:
        print(f"video:  {video}")


def _video(name: str, prompt: str, bundle: str) -> str:
    output = VIDEOS / f"{name}.mp4"
    run_py = str(Path(bundle) / "run.py")
    report = _json(run_py, "--prompt", prompt, "-o", str(output), "--seed", "1", "--json", saying=f'running "{prompt}"')
    for phase, seconds in report["seconds"].items():
        print(f"  {phase:<10} {seconds:.1f} s")
    return str(output)


def _json(*arguments: str, saying: str) -> dict[str, Any]:
    """Run a Python program that prints JSON; its errors are its own to explain."""
    print(f"{saying} …", flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
