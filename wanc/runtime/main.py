"""The command line of a bundle: `python run.py --prompt "…" -o out.mp4`, or `--inputs in.npz -o out.npz`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .errors import EXIT_REFUSED, EXIT_USAGE, UserError, render

EXIT_INTERRUPTED = 130
TASK_OPTIONS = ("inputs", "prompt", "negative_prompt", "seed", "steps", "shape", "frames", "latents")
EPILOG = """examples:
  python run.py --prompt "A red circle moves to the left." --seed 7 -o out.mp4
  python run.py --inputs in.npz -o out.npz"""


class _Parser(argparse.ArgumentParser):
    """argparse, with wanc's form of an error."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint: python run.py --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the bundle at `root` with command-line arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    clean_up_on_sigterm()
    try:
        # Imported late, so that --help answers at once.
        from .execute import run, run_selftest

        progress = sys.stderr.isatty() or not options.json
        if options.selftest:
            report = run_selftest(root, threads=options.threads, progress=progress)
        else:
            if options.output is None:
                raise UserError("-o FILE is needed", hint="python run.py --help")
            given = {name: getattr(options, name) for name in TASK_OPTIONS}
            report = run(root, options.output, given, threads=options.threads, progress=progress)
    except UserError as error:
        print(render(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(json.dumps(report.as_json()) if options.json else report.as_text())
    return 0 if report.ok else EXIT_REFUSED


def clean_up_on_sigterm() -> None:
    """Let SIGTERM end the process the way an exception does, so that nothing half-written stays; exit code 143."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run.py",
        description="Run this bundle. Every file is verified first; nothing is written here.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, help="the file to write: .mp4, or .npz where one graph is run")
    parser.add_argument("--inputs", type=Path, help="an .npz file of the graph's inputs, by name")
    parser.add_argument("--prompt", help="what the video shows, in any language that the model knows")
    parser.add_argument("--negative-prompt", help="what it should not show (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="seed of the initial noise (default: 0)")
    parser.add_argument("--steps", type=int, help="number of sampling steps (default: the recipe's)")
    parser.add_argument("--shape", help="name of one of the bundle's shapes (default: its first)")
    parser.add_argument("--frames", type=int, help="number of frames, 4n+1 (default: the shape's)")
    parser.add_argument("--latents", type=Path, help="initial noise from a .npy file, instead of a seed")
    parser.add_argument("--threads", type=int, help="CPU threads, 0 for every core (default: the recipe's)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--selftest", action="store_true", help="replay the golden inputs instead")
    return parser
