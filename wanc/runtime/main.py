"""The command line of a bundle: `python run.py --prompt "…" -o out.mp4`, or `--inputs in.npz -o out.npz`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from .directory import Root
from .ending import ending_on_signals
from .errors import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, TargetError, UserError, render
from .options import OPTIONS, OUTPUT_HELP, taken_limits
from .printing import print_note, print_report
from .requirements import INSTALL, differences
from .streams import complain, standard_streams

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
def main(root: Root, arguments: Sequence[str] | None = None) -> int:
    """Run the bundle at `root` with command-line arguments; returns the exit code."""
    options = _parser().parse_args(arguments)
    # OpenBLAS makes its threads when numpy is loaded, which nothing here has work for.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ending_on_signals():
        return _main(root, options)


def _main(root: Root, options: argparse.Namespace) -> int:
    try:
        # Imported late, so that --help answers at once.
        from .execute import run, run_selftest
        from .progress import Bars
        from .trace import tracing

        with tracing(options.trace), Bars(enabled=sys.stderr.isatty() or not options.json) as bars:
            given = {option.name: getattr(options, option.name) for option in OPTIONS if option.task}
            limits = taken_limits(vars(options))
            if options.selftest:
                _check_alone({"output": options.output, **given})
                report = run_selftest(root, **limits, on_progress=bars)
            else:
                if options.output is None:
                    raise UserError("-o FILE is needed", hint="python run.py --help")
                report = run(root, options.output, given, **limits, on_progress=bars, on_note=print_note)
            print_report(report, options.output, as_json=options.json)
    except TargetError as error:
        return _fail(render(error), differences(root), error.exit_code)
    except UserError as error:
        return _fail(render(error), [], error.exit_code)
    except ImportError as error:  # a package that is missing, or made for another Python or numpy
        return _fail(f"error: a package cannot be loaded\ncaused by: {error}", differences(root), EXIT_UNAVAILABLE)
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    return 0 if report.ok else EXIT_REFUSED


def _fail(said: str, others: Sequence[str], code: int) -> int:
    """Say it, and which packages are others than those that the bundle was built with."""
    complain("\n".join([said, *(f"hint: {line}: {INSTALL}" for line in others)]))
    return code


def _check_alone(others: Mapping[str, object]) -> None:
    """The self-test takes no options but those of every task."""
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
        if option.type is bool:
            parser.add_argument(option.flag, action="store_const", const=True, help=option.help)
        else:
            parser.add_argument(option.flag, type=option.type, metavar=option.metavar, help=option.help)
    parser.add_argument("--json", action="store_true", help="Print JSON on stdout.")
    parser.add_argument("--selftest", action="store_true", help="Replay the golden inputs instead.")
    return parser
