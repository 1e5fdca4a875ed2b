"""Compares quantised bundles of the tiny model with the unquantised one, on clips for held-out prompts.

For each of 200 (prompt, seed) pairs, half English and half Chinese, all bundles generate a clip from the same noise.
Exits with 1 if a bundle that --hold names misses a bound; the others are reported.

examples:
  python -m scripts.compare_tiny_wan tiny-wan tiny-wan-int8 --hold tiny-wan-int8
  python -m scripts.compare_tiny_wan tiny-wan tiny-wan-int8 tiny-wan-fp8 --json -o comparison.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.tiny_wan import comparison, evaluation
from scripts.tiny_wan.configuration import STEPS
from scripts.tiny_wan.progress import counted
from wanc.runtime.errors import UserError
from wanc.runtime.whole_file import require_writable, write_whole

TABLE = "the table"
PAIRS = 200
LOWEST_PSNR_DB = 32.0
LOWEST_COSINE = 0.995
MOST_POINTS = 2.0
MOST_MOTION = 0.03

Pairs = Sequence[comparison.Pair]


def bundle_maker(bundle: Path, steps: int) -> comparison.Make:
    """Generate with a compiled bundle; needs no torch."""
    from wanc.runtime.pipeline import Pipeline

    pipeline = Pipeline.open(bundle)

    def make(prompt: str, seed: int) -> comparison.Clip:
        result = pipeline.generate(prompt, seed=seed, steps=steps)
        return comparison.Clip(result.frames, result.latents)

    return make


def measure(
    reference: comparison.Make, others: Mapping[str, comparison.Make], count: int
) -> dict[str, list[comparison.Pair]]:
    """All pairs of each of the ``others`` with the reference, with progress on stderr."""
    compared = comparison.compare(reference, others, evaluation.cases(count))
    rounds = list(counted(compared, count, "pairs"))
    return {name: [pairs[name] for pairs in rounds] for name in others}


def misses(name: str, figures: comparison.Figures) -> list[str]:
    """One sentence for each bound that is missed."""
    found: list[str] = []
    if figures.psnr_db < LOWEST_PSNR_DB:
        found.append(f"{name}: the mean PSNR is {figures.psnr_db:.2f} dB, less than {LOWEST_PSNR_DB:g} dB")
    if figures.cosine < LOWEST_COSINE:
        found.append(f"{name}: the mean cosine of latents is {figures.cosine:.5f}, less than {LOWEST_COSINE:g}")
    for attribute, points in figures.points.items():
        if abs(points) > MOST_POINTS:
            found.append(f"{name}: {attribute} agrees by {points:+.1f} points, not within {MOST_POINTS:g}")
    if abs(figures.motion_ratio - 1) > MOST_MOTION:
        found.append(f"{name}: there is {figures.motion_ratio:.1%} of the motion, not within {MOST_MOTION:.0%} of all")
    return found


def markdown(reference: str, measured: Mapping[str, Pairs], steps: int) -> str:
    """A table with a row for each bundle, the reference first."""
    some = next(iter(measured.values()))
    expected = comparison.agreement_of_reference(some)
    header = ("bundle", "PSNR, dB", "5th percentile", "cosine", *expected, "motion", "travel", "bounds")
    rows = [(reference, "", "", "", *(f"{share:.1%}" for share in expected.values()), "", "", "")]
    rows += [_row(name, comparison.figures(pairs)) for name, pairs in measured.items()]
    lines = [header, tuple("---" if cell == "bundle" else "---:" for cell in header), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{len(some)} pairs of prompt and seed, {steps} steps, against {reference}:\n\n{table}\n"


def _row(name: str, figures: comparison.Figures) -> tuple[str, ...]:
    shares = (f"{share:.1%} ({figures.points[key]:+.1f})" for key, share in figures.agreement.items())
    bounds = "missed" if misses(name, figures) else "met"
    return (
        name, f"{figures.psnr_db:.2f}", f"{figures.psnr_db_p5:.2f}", f"{figures.cosine:.5f}", *shares,
        f"{figures.motion_ratio:.1%}", f"{figures.travel_ratio:.1%}", bounds,
    )  # fmt: skip


def as_json(reference: str, measured: Mapping[str, Pairs], held: Sequence[str], steps: int) -> dict[str, Any]:
    """All figures, for programs."""
    some = next(iter(measured.values()))
    bundles = {name: comparison.figures(pairs) for name, pairs in measured.items()}
    return {
        "pairs": len(some),
        "steps": steps,
        "reference": {"bundle": reference, "agreement": comparison.agreement_of_reference(some)},
        "bundles": [
            {"bundle": name, **asdict(figures), "held": name in held, "missed": misses(name, figures)}
            for name, figures in bundles.items()
        ],
    }


def parse(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and refuse what makes no sense before anything is generated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=_folder, help="the unquantised bundle")
    parser.add_argument("bundles", type=_folder, nargs="+", metavar="bundle", help="a quantised bundle")
    parser.add_argument(
        "--hold", type=_folder, action="append", default=[], metavar="bundle", help="fail if this one misses a bound"
    )
    parser.add_argument("--pairs", type=int, default=PAIRS, help="number of clips of each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table as Markdown")
    arguments = parser.parse_args(command_line)
    folders: list[Path] = [arguments.reference, *arguments.bundles]
    if missing := [folder for folder in folders if not folder.exists()]:
        parser.error(f"there is no {missing[0]}")
    if len({folder.name for folder in folders}) < len(folders):
        parser.error("bundles are told apart by the names of their folders: two have the same")
    if unknown := [folder for folder in arguments.hold if folder not in arguments.bundles]:
        parser.error(f"--hold names {unknown[0]}, which is none of the quantised bundles")
    if arguments.pairs < 1:
        parser.error("--pairs has to be at least 1")
    if arguments.output is not None:
        if not arguments.output.parent.is_dir():
            parser.error(f"there is no {arguments.output.parent}")
        try:
            require_writable(arguments.output, TABLE)
        except UserError as error:
            parser.error(str(error))
    return arguments


def _folder(text: str) -> Path:
    return Path(text).resolve()


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    arguments = parse(command_line)
    reference, held = arguments.reference.name, [folder.name for folder in arguments.hold]
    makers = {folder.name: bundle_maker(folder, STEPS) for folder in arguments.bundles}
    measured = measure(bundle_maker(arguments.reference, STEPS), makers, arguments.pairs)
    table, document = markdown(reference, measured, STEPS), as_json(reference, measured, held, STEPS)
    print(json.dumps(document, indent=2) + "\n" if arguments.json else table, end="")
    if arguments.output is not None:
        write_whole(arguments.output, table.encode(), TABLE)
    for bundle in document["bundles"]:
        for sentence in bundle["missed"]:
            print(f"{'error' if bundle['held'] else 'warning'}: {sentence}", file=sys.stderr)
    return 1 if any(bundle["held"] and bundle["missed"] for bundle in document["bundles"]) else 0


if __name__ == "__main__":
    sys.exit(main())
