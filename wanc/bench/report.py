"""A benchmark's report: JSON for programs, a Markdown table and a picture for people."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from wanc.bench.rates import profile_of
from wanc.compiler.planner.profile import SUFFIX as PROFILE
from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.destination import reporting
from wanc.runtime.whole_file import require_writable, write_whole
from wanc.terminal import TextTable

WHAT = "the report"
OURS = "wanc "
# Errors below are those of float32 itself: they say nothing about a contender.
SMALLEST_ERROR = 2e-6


def require_report(folder: Path) -> None:
    """Find out before anything is measured whether a report can be written. Raises what `write_report` raises."""
    _require_matplotlib()
    # What is not there yet is made when there is something to put into it.
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    require_writable(place / "report.json", WHAT)


def write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write a report's `.json`, `.md` and `.svg` into a folder, named after its case; returns the files.

    Where it measured this machine's rates, they are a profile for plans beside it. Raises UserError where matplotlib is
    missing, and what `whole_file` raises.
    """
    case = report["case"]
    if "recipe" in case:
        name = f"video-{case['recipe']}"
    else:
        kind = "int8" if report["only"] == "int8" else "step"
        name = f"{kind}-{case['width']}x{case['blocks']}-{case['tokens']}"
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "md", "svg")]
    text = json.dumps(report, indent=1) + "\n"
    contents = [text.encode(), markdown(report, paths[2].name).encode(), _drawn(report)]
    if "recipe" not in case and (profile := profile_of(report)).rates:
        paths.append(folder / f"{name}{PROFILE}")
        contents.append(profile.text().encode())
    with reporting(folder, WHAT):
        folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        write_whole(path, content, WHAT)
    return paths


def _require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise UserError("the picture needs matplotlib", hint="pip install 'wanc[report]'", exit_code=EXIT_UNAVAILABLE)


def table(report: dict[str, Any]) -> TextTable:
    """The contenders, fastest first."""
    header, *rows = _rows(report)
    return TextTable(_title(report), rows, header)


def markdown(report: dict[str, Any], picture: str) -> str:
    """The report as a page."""
    header, *rows = _rows(report)
    lines = [header, ["---"] * len(header), *rows]
    machine = report["machine"]
    tools = ", ".join(f"{name} {version}" for name, version in machine["tools"].items())
    return "\n".join(
        [
            f"# {_title(report)}",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            f"All contenders in turn, {len(report['contenders'][0]['seconds'])} rounds after one that is not counted; "
            f"median, fastest and slowest round. {machine['processor']}, {machine['cores']} cores, "
            f"{report['threads']} threads; {', '.join(machine['features'])}; {tools}.",
            "",
            f"![Time against error]({picture})",
            "",
        ]
    )


def _title(report: dict[str, Any]) -> str:
    case = report["case"]
    if "recipe" in case:
        return f"{case['recipe']}: {case['video']} (frames x height x width), {case['steps']} steps with guidance"
    numbers = " in INT8" if report["only"] == "int8" else ""
    return f"One step{numbers}: width {case['width']}, {case['blocks']} blocks, {case['tokens']} tokens"


def _rows(report: dict[str, Any]) -> list[list[str]]:
    contenders = sorted(report["contenders"], key=lambda entry: entry["median"])
    slowest = max(entry["median"] for entry in contenders)
    whole, integers = "psnr_db" in contenders[0], report["only"] == "int8"
    header = ["contender", "median s", "fastest–slowest", "times as fast as the slowest", "relative error"]
    shares = ["INT8 of Linears", "INT8 of all products"] if integers else []
    last = ["error / noise floor", "PSNR dB"] if whole else ["once per request, s"]
    rows = [[*header, *shares, *last]]
    for entry in contenders:
        spread = f"{min(entry['seconds']):.3f}–{max(entry['seconds']):.3f}"
        ratio = f"{slowest / entry['median']:.2f}"
        row = [entry["name"], f"{entry['median']:.3f}", spread, ratio, f"{entry['rel_error']:.1e}"]
        if integers:
            row += [f"{entry['int8_linear_share']:.1%}", f"{entry['int8_total_share']:.1%}"]
        if whole:
            quality = "equal" if entry["psnr_db"] is None else f"{entry['psnr_db']:g}"
            row += [f"{entry['floors']:.1f}" if "floors" in entry else "", quality]
        else:
            row.append(f"{entry['once_seconds']:g}")
        rows.append(row)
    return rows


def _drawn(report: dict[str, Any]) -> bytes:
    """Time against error, as SVG: whoever is to the left and below is better."""
    _require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Equal reports are equal files.
    mpl.rcParams["svg.hashsalt"] = "wanc"
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for entry in sorted(report["contenders"], key=lambda entry: entry["median"]):
        ours = entry["name"].startswith(OURS)
        error = max(entry["rel_error"], SMALLEST_ERROR)
        axes.scatter(entry["median"], error, marker="o" if ours else "s", color="#0b6" if ours else "#888", zorder=2)
        axes.annotate(entry["name"], (entry["median"], error), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="seconds (median)", ylabel="relative error against PyTorch fp32")
    axes.set_title(_title(report), fontsize=10)
    axes.grid(visible=True, which="major", alpha=0.3)
    picture = BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
