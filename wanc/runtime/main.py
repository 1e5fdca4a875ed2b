"""The command line of a bundle: `python run.py --prompt "…" -o out.mp4`, or `--inputs in.npz -o out.npz`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .errors import EXIT_REFUSED, EXIT_USAGE, UserError, render
from .options import OPTIONS, OUTPUT_HELP
from .printing import checked_stdout, print_note, print_report, replace_closed_streams

EXIT_INTERRUPTED = 130
EPILOG = """examples:
  python run.py --prompt "A red circle moves to the left." --seed 7 -o out.mp4
  python run.py --prompts prompts.txt -o videos
  python run.py --inputs in.npz -o out.npz"""


class _Parser(argparse.ArgumentParser):
    """argparse, with wanc's form of an error."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\nhint: python run.py --help", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)


def main(root: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the bundle at `root` with command-line arguments; returns the exit code."""
    replace_closed_streams()
    options = _parser().parse_args(arguments)
    clean_up_on_sigterm()
    try:
        # Imported late, so that --help answers at once.
        from .execute import run, run_selftest
        from .progress import Bars

        with checked_stdout(), Bars(enabled=sys.stderr.isatty() or not options.json) as bars:
            given = {option.name: getattr(options, option.name) for option in OPTIONS if option.task}
            if options.selftest:
                _check_alone({"output": options.output, **given})
                report = run_selftest(root, threads=options.threads, on_progress=bars)
            else:
                if options.output is None:
                    raise UserError("-o FILE is needed", hint="python run.py --help")
                report = run(root, options.output, given, threads=options.threads, on_progress=bars, on_note=print_note)
            print_report(report, options.output, as_json=options.json)
    except UserError as error:
        print(render(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0 if report.ok else EXIT_REFUSED


def clean_up_on_sigterm() -> None:
    """Let SIGTERM, and what a terminal sends, end the process the way an exception does, so that nothing half-written
    stays; exit code 128 and the signal's number. What was told to be ignored, as by nohup, still is.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _check_alone(others: Mapping[str, object]) -> None:
    """The self-test takes no options but threads."""
    if given := [f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None]:
        raise UserError(f"--selftest and {' and '.join(given)} exclude each other", hint="give one of them")


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
