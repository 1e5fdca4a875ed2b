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
from .options import OPTIONS, OUTPUT_HELP
from .streams import complain, print_result, standard_streams

EXIT_INTERRUPTED = 130
EPILOG = """examples:
  python run.py --prompt "A red circle moves to the left." --seed 7 -o out.mp4
  python run.py --prompts prompts.txt -o videos
  python run.py --inputs in.npz -o out.npz"""


class _Parser(argparse.ArgumentParser):
    """argparse, with wanc's form of an error."""

    def error(self, message: str) -> NoReturn:
        complain(f"error: {message}\nhint: python run.py --help")
        raise SystemExit(EXIT_USAGE)


@standard_streams()
def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the bundle at `root` with command-line arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    clean_up_on_sigterm()
    try:
        # Imported late, so that --help answers at once.
        from .execute import run, run_selftest
        from .progress import Bars

        with Bars(enabled=sys.stderr.isatty() or not options.json) as bars:
            if options.selftest:
                report = run_selftest(root, threads=options.threads, on_progress=bars)
            else:
                if options.output is None:
                    raise UserError("-o FILE is needed", hint="python run.py --help")
                given = {option.name: getattr(options, option.name) for option in OPTIONS if option.task}
                report = run(root, options.output, given, threads=options.threads, on_progress=bars)
        print_result(json.dumps(report.as_json()) if options.json else report.as_text())
    except UserError as error:
        complain(render(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
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
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=OUTPUT_HELP)
    for option in OPTIONS:
        parser.add_argument(option.flag, type=option.type, metavar=option.metavar, help=option.help)
    parser.add_argument("--json", action="store_true", help="Print JSON on stdout.")
    parser.add_argument("--selftest", action="store_true", help="Replay the golden inputs instead.")
    return parser
