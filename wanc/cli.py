"""The command line. Each verb parses its arguments, calls one library function and prints what it returns.

Results go to stdout, everything for people alongside to stderr. Imports are inside the verbs: `wanc --help` and a
rebuild with nothing to do load no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from wanc import __version__, completion
from wanc.errors import EXIT_REFUSED, EXIT_UNAVAILABLE, UserError, render
from wanc.folders import DEFAULT_OUTPUT, Folders
from wanc.runtime.backends.offline import stay_offline
from wanc.runtime.options import OUTPUT_HELP, taken_limits
from wanc.runtime.streams import complain, print_result, standard_streams
from wanc.runtime.voice import say, shows_progress
from wanc.verbs.on_target import build_child
from wanc.verbs.options import (
    BundleFolder,
    Json,
    Output,
    Overrides,
    RecipeOrBundle,
    StoreFolder,
    that_speaks,
    with_options_of_a_run,
)
from wanc.verbs.plan import plan
from wanc.verbs.recipe import recipe_app
from wanc.verbs.report import report, report_on_builds
from wanc.verbs.store import store_app

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="wanc",
    help="Compile a text-to-video diffusion model into a bundle that runs without PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(store_app, name="store")

Explained = Literal["fuse", "quantize", "engine"]
Numbers = Literal["float", "int8"]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print_result(f"wanc {__version__}")
        raise typer.Exit


@app.command(
    epilog="Example: wanc build recipes/tiny-wan.yaml --set sampling.steps=10 --log-file build.log; "
    "on a cluster, wanc build recipes/tiny-wan.yaml --executor ray:10.0.0.1:6379; "
    "and where the GPU is, wanc build --on-target artifacts/bundles/wan"
)
@that_speaks
def build(
    recipe: RecipeOrBundle,
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    overrides: Overrides = [],
    variants: Annotated[
        list[str], typer.Option("--variant", metavar="NAME", help="Build this variant of the matrix; may be repeated.")
    ] = [],
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Build the other variants where one of them fails.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a bundle of this name that another recipe or store has made.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Build a second time from nothing and compare.")] = False,
    paranoid: Annotated[bool, typer.Option("--paranoid", help="Hash every input again.")] = False,
    max_build_memory: Annotated[
        str | None,
        typer.Option(
            "--max-build-memory", metavar="SIZE", help="Cut engines so that none takes more to build, such as 8GiB."
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="Where stages run: in-process, ray, or ray:HOST:PORT, a cluster that all see the store from.",
        ),
    ] = "in-process",
    explain: Annotated[
        Explained | None, typer.Option(help="Say what a stage did, and what it did not, and why.")
    ] = None,
    on_target: Annotated[
        bool, typer.Option("--on-target", help="Build the engines that a bundle asks for on this machine's GPU.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the bundle of a recipe, or of each of its variants; or, on its target, what a bundle asks for."""
    from wanc.compiler.explain import explain as explained_by
    from wanc.compiler.explain import explain_tables
    from wanc.compiler.pipeline import rebuild_and_compare
    from wanc.compiler.variants import VariantBuild, VariantsError, build_variants, chosen, summary
    from wanc.recipe.load import load
    from wanc.runtime.ending import clean_up_on_sigterm
    from wanc.terminal import show

    clean_up_on_sigterm()
    if on_target:
        of_recipes = {"--set": overrides, "--variant": variants, "--max-build-memory": max_build_memory}
        asked = {"--keep-going": keep_going, "--check": check, "--paranoid": paranoid, "--explain": explain}
        asked["--executor"] = executor != "in-process"
        build_child(recipe, output, replace=replace, as_json=as_json, others={**of_recipes, **asked})
        return

    results: list[dict[str, Any]] = []
    different: dict[str, list[str]] = {}
    progress = shows_progress(as_json=as_json)
    if max_build_memory is not None:
        overrides = [*overrides, f"engine.max_build_memory={max_build_memory}"]
    folders, asked = Folders.chosen(output, store), chosen(load(recipe, overrides), variants)

    def ended(built: VariantBuild) -> None:
        result = built.result
        if result is None:
            complain(render(built.error) if built.error else "")
            results.append(built.as_json())
            return
        if check:
            different[str(result.bundle)] = rebuild_and_compare(
                result, built.loaded, progress=progress, executor=executor
            )
        explained = explained_by(explain, result.stages, folders.store) if explain else {}
        results.append({**built.as_json(), **({explain: explained} if explain else {})})
        if not as_json:
            print_result(f"{result.bundle}  {result.id}")
            if explain:
                show(explain_tables(explain, explained))

    failed: VariantsError | None = None
    try:
        builds = build_variants(
            asked,
            folders,
            replace=replace,
            paranoid=paranoid,
            progress=progress,
            keep_going=keep_going,
            on_end=ended,
            executor=executor,
        )
    except VariantsError as error:
        builds, failed = error.builds, error
    reported = None
    if failed is None:
        made = [(entry.loaded, entry.result.bundle) for entry in builds if entry.result]
        recipes, bundles = [loaded for loaded, _ in made], [bundle for _, bundle in made]
        reported = report_on_builds(recipes, bundles, folders, progress=progress)
    if reported is not None:
        results = [{**result, "report": str(reported[0])} for result in results]
    if as_json:
        print_result(json.dumps(results if len(asked) > 1 or asked[0].variant is not None else results[0]))
    elif len(asked) > 1:
        show([summary(builds)])
    if reported is not None and not as_json:
        print_result(f"{reported[1].verdict.summary}\n{reported[0]}")
    for bundle, paths in different.items():
        verdict = f"differs when built again: {', '.join(paths)}" if paths else "is bit-identical when built again"
        (complain if paths else say)(f"{bundle} {verdict}")
    if failed is not None:
        raise failed
    if any(different.values()):
        raise typer.Exit(EXIT_REFUSED)
    if reported is not None and (code := reported[1].exit_code):
        raise typer.Exit(code)


app.command(epilog="Example: wanc plan recipes/wan2.2-t2v-a14b-int8.yaml --variant 4xa100-80g -o artifacts/plan")(plan)


app.command(
    epilog="Example: wanc report artifacts/bundles/tiny-wan-int8 --baseline artifacts/bundles/tiny-wan "
    "--recipe recipes/tiny-wan-int8.yaml -o artifacts/reports/tiny-wan-int8"
)(report)


@app.command(epilog="Example: wanc passes")
def passes(as_json: Json = False) -> None:
    """List the passes of fuse and of each engine's lowering, in the order in which they are applied."""
    from wanc.compiler.places import list_passes, pass_tables
    from wanc.terminal import show

    if as_json:
        print_result(json.dumps(list_passes()))
    else:
        show(pass_tables())


@app.command(epilog="Example: wanc bench --case width=1536,blocks=4,latent=4x16x16 -o artifacts/bench")
@that_speaks
def bench(
    case: Annotated[str, typer.Option(help="Width, blocks, latent size and threads of a denoising step.")] = "",
    only: Annotated[Numbers, typer.Option(help="Which numbers contenders compute in.")] = "float",
    e2e: Annotated[
        Path | None, typer.Option("--e2e", metavar="RECIPE", help="Measure whole videos of this recipe instead.")
    ] = None,
    overrides: Overrides = [],
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads for everyone, with --e2e; 2 if unset.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 5,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where the report is written; bench/ where bundles/ are if unset."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure wanc beside its peers, all in turn in one run, and write a report with a picture."""
    from wanc.bench.report import require_report, table, write_report
    from wanc.terminal import show

    idle = {"--case": case, "--only": only != "float"} if e2e else {"--set": overrides, "--threads": threads}
    if given := [flag for flag, value in idle.items() if value]:
        raise UserError(f"{' and '.join(given)} would have no effect {'with' if e2e else 'without'} --e2e")
    output = output or Folders.chosen().output / "bench"
    require_report(output)
    progress = shows_progress(as_json=as_json)
    if e2e is not None:
        from wanc.bench.end_to_end import bench_end_to_end

        report = bench_end_to_end(e2e, overrides, threads=threads or 2, rounds=rounds, output=output, progress=progress)
    else:
        from wanc.bench.case import Case
        from wanc.bench.contest import bench

        report = bench(Case.parse(case), only=only, rounds=rounds, work=output, progress=progress)
    # What was measured is shown before anything can go wrong with its files.
    if as_json:
        print_result(json.dumps(report))
    else:
        show([table(report)])
    paths = write_report(report, output)
    if not as_json:
        print_result("\n".join(map(str, paths)))


@app.command(epilog='Example: wanc run artifacts/bundles/tiny-wan --prompt "A red circle moves left." -o out.mp4')
@that_speaks
@with_options_of_a_run
def run(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help=OUTPUT_HELP, show_default=False)],
    *,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Run a bundle, exactly as its own run.py does: prompts give videos, or arrays give arrays."""
    from wanc.runtime.ending import ending_on_signals
    from wanc.runtime.execute import run
    from wanc.runtime.printing import print_note, print_report
    from wanc.runtime.progress import Bars
    from wanc.runtime.trace import tracing

    limits = taken_limits(options)
    trace = options.pop("trace")
    with ending_on_signals(), tracing(trace), Bars(enabled=shows_progress(as_json=as_json)) as bars:
        report = run(bundle, output, options, **limits, on_progress=bars, on_note=print_note)
    print_report(report, output, as_json=as_json)


@app.command(epilog="Example: wanc verify artifacts/bundles/tiny-wan")
@that_speaks
def verify(bundle: BundleFolder, as_json: Json = False) -> None:
    """Check that a bundle holds exactly the files that its manifest lists, bit for bit."""
    from wanc.runtime.engine_file import BUILD_IT, to_build
    from wanc.runtime.progress import ProgressBar
    from wanc.runtime.verify import verify

    with ProgressBar("verify", enabled=shows_progress(as_json=as_json)) as bar:
        report = verify(bundle, bar.move_to)
    left = to_build(report.manifest.topology) if report.manifest else 0
    if as_json:
        failures = [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
        waiting = {"to_build": left} if left else {}
        print_result(json.dumps({"ok": report.ok, "id": report.id, **waiting, "failures": failures}))
    elif report.ok:
        print_result(f"verified {report.id}")
        if left:
            say(f"{left} of its engines are to be built on their target: {BUILD_IT} {bundle}")
    else:
        for failure in report.failures:
            complain(f"{failure.path}: {failure.reason}")
        hint = report.remedy(bundle) or "do not run it"
        complain(f"error: {bundle} is not what its manifest says\nhint: {hint}")
    if not report.ok:
        raise typer.Exit(EXIT_REFUSED)


@app.command(epilog="Example: wanc inspect artifacts/bundles/tiny-wan")
def inspect(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATH|KEY",
            help="A folder of a bundle or a checkpoint, a program.json, an .onnx or .safetensors file, or a key.",
            show_default=False,
            autocompletion=completion.bundles,
        ),
    ],
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Show what a bundle, a program, a graph or a store entry is made of."""
    from wanc.inspection.find import inspect
    from wanc.inspection.text import tables
    from wanc.terminal import show

    document = inspect(what, output, store)
    if as_json:
        print_result(json.dumps(document))
    else:
        show(tables(document))


@app.command(epilog="Example: wanc doctor")
def doctor(output: Output = Path(DEFAULT_OUTPUT), store: StoreFolder = None, as_json: Json = False) -> None:
    """Say what this machine can build and run, and what it lacks."""
    from wanc.doctor.report import examine
    from wanc.runtime.progress import ProgressBar
    from wanc.terminal import show

    with ProgressBar("examine this machine", enabled=shows_progress(as_json=as_json), transient=True):
        report = examine(output, store)
    if as_json:
        print_result(json.dumps(report.as_json()))
    else:
        show(report.tables())
    if not report.is_ok:
        raise typer.Exit(EXIT_UNAVAILABLE)


@app.command(epilog="Example: wanc convert checkpoints/Wan2.2-T2V-A14B/Wan2.1_VAE.pth")
def convert(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.pth...", help="Pickles of tensors; they stay.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="What to write, if not .safetensors files beside them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert pickles of tensors to safetensors, which wanc reads; what else is in a pickle is refused."""
    from wanc.compiler.pickles import convert_files

    written = convert_files(files, output, progress=shows_progress(as_json=as_json))
    print_result(json.dumps([str(path) for path in written]) if as_json else "\n".join(map(str, written)))


def _usage(error: TyperException) -> str:
    """What typer has to say about arguments, in wanc's form; without any arguments, that is the help."""
    message = error.format_message()
    if message.startswith("Usage:"):
        return message
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "wanc"
    return f"error: {message[0].lower()}{message[1:].rstrip('.')}\nhint: {command} --help"


@standard_streams()
def main() -> None:
    """The console script: faults of the user's are printed for people, bugs keep their traceback."""
    stay_offline()
    try:
        raise SystemExit(app(prog_name="wanc", standalone_mode=False))
    except UserError as error:
        complain(render(error))
        raise SystemExit(error.exit_code) from None
    except TyperException as error:
        complain(_usage(error))
        raise SystemExit(error.exit_code) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "wanc"):
            raise
        complain(f"error: the package {package} is missing\nhint: wanc doctor says how to install it")
        raise SystemExit(EXIT_UNAVAILABLE) from None
    except KeyboardInterrupt:
        complain("interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None


if __name__ == "__main__":
    main()
