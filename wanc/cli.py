"""The command line. Each verb parses its arguments, calls one library function and prints what it returns.

Results go to stdout, everything for people alongside to stderr. Imports are inside the verbs: `wanc --help` and a
rebuild with nothing to do load no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from wanc import __version__, completion
from wanc.errors import EXIT_REFUSED, EXIT_UNAVAILABLE, UserError, render
from wanc.folders import DEFAULT_OUTPUT, OUTPUT_VARIABLE, STORE_VARIABLE, Folders
from wanc.runtime.backends.offline import stay_offline
from wanc.runtime.options import OPTIONS, OUTPUT_HELP
from wanc.runtime.streams import complain, print_result, standard_streams
from wanc.runtime.voice import say, shows_progress

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="wanc",
    help="Compile a text-to-video diffusion model into a bundle that runs without PyTorch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipe_app = typer.Typer(help="Look at, check and write recipes.", no_args_is_help=True, rich_markup_mode=None)
store_app = typer.Typer(help="Look into the store of finished work.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipe_app, name="recipe")
app.add_typer(store_app, name="store")

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="The recipe's YAML file.", show_default=False, autocompletion=completion.recipes
    ),
]
BundleFolder = Annotated[
    Path, typer.Argument(help="The bundle's folder.", show_default=False, autocompletion=completion.bundles)
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one value; may be repeated; wins last.",
        autocompletion=completion.settings,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", help="Where bundles/ are.", file_okay=False, show_default=True, envvar=OUTPUT_VARIABLE
    ),
]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Where finished work is kept; store/ in the output folder if unset.",
        file_okay=False,
        show_default=False,
        envvar=STORE_VARIABLE,
    ),
]
Explained = Literal["fuse", "quantize", "engine"]
Numbers = Literal["float", "int8"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
VOICE: Mapping[str, tuple[Any, object]] = {
    "quiet": (Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors and the result.")], False),
    "verbose": (Annotated[bool, typer.Option("-v", "--verbose", help="Say why things are done, and where.")], False),
    "log_file": (
        Annotated[
            Path | None,
            typer.Option("--log-file", metavar="FILE", help="Append all that --verbose says to FILE, with the time."),
        ],
        None,
    ),
}
"""How much is said: what every verb takes that may work for a while."""


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print_result(f"wanc {__version__}")
        raise typer.Exit


def that_speaks(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the options of `VOICE` behind its own."""

    @wraps(verb)
    def speaking(*, quiet: bool, verbose: bool, log_file: Path | None, **options: Any) -> None:
        from wanc.log_file import talking

        with talking(quiet=quiet, verbose=verbose, log_file=log_file, output=options.get("output")):
            verb(**options)

    own = signature(verb, eval_str=True).parameters.values()
    voice = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in VOICE.items()
    ]
    return _with_parameters(speaking, [*own, *voice])


def _with_parameters(verb: Callable[..., None], parameters: list[Parameter]) -> Callable[..., None]:
    vars(verb)["__signature__"] = Signature(parameters)
    verb.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    return verb


@app.command(epilog="Example: wanc build recipes/tiny-wan.yaml --set sampling.steps=10 --log-file build.log")
@that_speaks
def build(
    recipe: RecipeFile,
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
    explain: Annotated[
        Explained | None, typer.Option(help="Say what a stage did, and what it did not, and why.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the bundle of a recipe, or of each of its variants."""
    from wanc.compiler.explain import explain as explained_by
    from wanc.compiler.explain import explain_tables
    from wanc.compiler.pipeline import rebuild_and_compare
    from wanc.compiler.variants import VariantBuild, VariantsError, build_variants, chosen, summary
    from wanc.recipe.load import load
    from wanc.runtime.ending import clean_up_on_sigterm
    from wanc.terminal import show

    clean_up_on_sigterm()

    results: list[dict[str, Any]] = []
    different: dict[str, list[str]] = {}
    progress = shows_progress(as_json=as_json)
    folders, asked = Folders.chosen(output, store), chosen(load(recipe, overrides), variants)

    def ended(built: VariantBuild) -> None:
        result = built.result
        if result is None:
            complain(render(built.error) if built.error else "")
            results.append(built.as_json())
            return
        if check:
            different[str(result.bundle)] = rebuild_and_compare(result, built.loaded, progress=progress)
        explained = explained_by(explain, result.stages, folders.store) if explain else {}
        results.append({**built.as_json(), **({explain: explained} if explain else {})})
        if not as_json:
            print_result(f"{result.bundle}  {result.id}")
            if explain:
                show(explain_tables(explain, explained))

    failed: VariantsError | None = None
    try:
        builds = build_variants(
            asked, folders, replace=replace, paranoid=paranoid, progress=progress, keep_going=keep_going, on_end=ended
        )
    except VariantsError as error:
        builds, failed = error.builds, error
    if as_json:
        print_result(json.dumps(results if len(asked) > 1 or asked[0].variant is not None else results[0]))
    elif len(asked) > 1:
        show([summary(builds)])
    for bundle, paths in different.items():
        verdict = f"differs when built again: {', '.join(paths)}" if paths else "is bit-identical when built again"
        (complain if paths else say)(f"{bundle} {verdict}")
    if failed is not None:
        raise failed
    if any(different.values()):
        raise typer.Exit(EXIT_REFUSED)


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


def with_options_of_a_run(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace a verb's `**options` by the options that a bundle's own run.py has, before those with a name alone."""
    own = signature(verb, eval_str=True).parameters.values()
    options = [
        Parameter(
            option.name,
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[option.type | None, typer.Option(help=option.help, metavar=option.metavar)],
        )
        for option in OPTIONS
    ]
    places = [entry for entry in own if entry.kind == Parameter.POSITIONAL_OR_KEYWORD]
    return _with_parameters(
        verb, [*places, *options, *(entry for entry in own if entry.kind == Parameter.KEYWORD_ONLY)]
    )


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

    threads = options.pop("threads")
    with ending_on_signals(), Bars(enabled=shows_progress(as_json=as_json)) as bars:
        report = run(bundle, output, options, threads=threads, on_progress=bars, on_note=print_note)
    print_report(report, output, as_json=as_json)


@app.command(epilog="Example: wanc verify artifacts/bundles/tiny-wan")
@that_speaks
def verify(bundle: BundleFolder, as_json: Json = False) -> None:
    """Check that a bundle holds exactly the files that its manifest lists, bit for bit."""
    from wanc.runtime.progress import ProgressBar
    from wanc.runtime.verify import verify

    with ProgressBar("verify", enabled=shows_progress(as_json=as_json)) as bar:
        report = verify(bundle, bar.move_to)
    if as_json:
        failures = [{"path": failure.path, "reason": failure.reason} for failure in report.failures]
        print_result(json.dumps({"ok": report.ok, "id": report.id, "failures": failures}))
    elif report.ok:
        print_result(f"verified {report.id}")
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


@recipe_app.command("show", epilog="Example: wanc recipe show recipes/tiny-wan.yaml --set sampling.steps=10")
def recipe_show(recipe: RecipeFile, overrides: Overrides = [], as_json: Json = False) -> None:
    """Print a recipe with everything resolved and every default filled in."""
    from wanc.recipe.load import load
    from wanc.recipe.show import to_yaml

    recipes = [loaded.recipe for loaded in load(recipe, overrides)]
    if as_json:
        print_result(json.dumps([entry.model_dump(mode="json") for entry in recipes]))
    else:
        print_result("---\n".join(to_yaml(entry) for entry in recipes), end="")


@recipe_app.command("check", epilog="Example: wanc recipe check recipes/tiny-wan.yaml")
def recipe_check(recipe: RecipeFile, overrides: Overrides = [], as_json: Json = False) -> None:
    """Check a recipe, all of its variants and the files that they name, without building anything."""
    from wanc.compiler.preflight import check_recipe

    checkup = check_recipe(recipe, overrides)
    if as_json:
        print_result(json.dumps(checkup.as_json()))
    elif not checkup.faults:
        print_result(f"ok: {', '.join(checkup.bundles)}")
    for fault in () if as_json else checkup.faults:
        complain(render(fault))
    if checkup.faults:
        raise typer.Exit(checkup.exit_code)


@recipe_app.command("schema", epilog="Example: wanc recipe schema > recipes/recipe.schema.json")
def recipe_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from wanc.recipe.json_schema import json_schema

    print_result(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@recipe_app.command("new", epilog="Example: wanc recipe new checkpoints/my-wan --name my-wan > my-wan.yaml")
def recipe_new(
    source: Annotated[
        str,
        typer.Argument(help="A Wan checkpoint's folder, an ONNX file, or a Python module.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; the source's if unset.", show_default=False)
    ] = None,
) -> None:
    """Print a commented recipe that fits a model, to be saved in the working directory."""
    from wanc.compiler.new_recipe import new_recipe

    print_result(new_recipe(source, name), end="")


@store_app.command("ls", epilog="Example: wanc store ls")
def store_ls(output: Output = Path(DEFAULT_OUTPUT), store: StoreFolder = None, as_json: Json = False) -> None:
    """List what is stored: stage, size, cost and key of every finished action."""
    from wanc.artifacts.listing import list_store

    listing = list_store(Folders.chosen(output, store).store)
    print_result(json.dumps(listing.as_json()) if as_json else listing.as_text())


@store_app.command("why", epilog="Example: wanc store why recipes/tiny-wan.yaml --set sampling.steps=10")
def store_why(
    recipe: RecipeFile,
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """Say, for each stage of a build, whether it is stored, and if not, what has changed."""
    from wanc.compiler.why import why
    from wanc.recipe.load import load

    answers = [answer for loaded in load(recipe, overrides) for answer in why(loaded, output, store)]
    if as_json:
        print_result(json.dumps([answer.as_json() for answer in answers]))
    else:
        print_result("\n".join(answer.as_text() for answer in answers))


@store_app.command("gc", epilog="Example: wanc store gc --days 30 --dry-run")
@that_speaks
def store_gc(
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    days: Annotated[int, typer.Option(min=1, help="Keep what was used in the last N days.", metavar="N")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what neither a bundle's last build nor the last days have used."""
    from wanc.artifacts.gc import clean
    from wanc.runtime.progress import ProgressBar

    with ProgressBar("gc", enabled=shows_progress(as_json=as_json)) as bar:
        root = Folders.chosen(output, store).store
        cleaning = clean(root, days=days, dry_run=dry_run, progress=bar.move_to, on_wait=say)
    print_result(json.dumps(cleaning.as_json()) if as_json else cleaning.as_text())


@store_app.command("fsck", epilog="Example: wanc store fsck")
@that_speaks
def store_fsck(output: Output = Path(DEFAULT_OUTPUT), store: StoreFolder = None, as_json: Json = False) -> None:
    """Read everything that is stored, and set aside what is damaged."""
    from wanc.artifacts.fsck import check
    from wanc.runtime.progress import ProgressBar

    with ProgressBar("fsck", enabled=shows_progress(as_json=as_json)) as bar:
        checkup = check(Folders.chosen(output, store).store, progress=bar.move_to, on_wait=say)
    print_result(json.dumps(checkup.as_json()) if as_json else checkup.as_text())
    if not checkup.ok:
        raise typer.Exit(EXIT_REFUSED)


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
