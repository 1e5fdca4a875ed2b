"""Arguments and options that verbs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from wanc import completion
from wanc.folders import OUTPUT_VARIABLE, STORE_VARIABLE
from wanc.runtime.options import OPTIONS, Option

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", help="The recipe's YAML file.", show_default=False, autocompletion=completion.recipes
    ),
]
RecipeOrBundle = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help="The recipe's YAML file, or a bundle's folder with --on-target.",
        show_default=False,
        autocompletion=completion.recipes,
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


def with_options_of_a_run(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace a verb's `**options` by the options that a bundle's own run.py has, before those with a name alone."""
    own = signature(verb, eval_str=True).parameters.values()
    options = [
        Parameter(
            option.name,
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[option.type | None, _typer_option(option)],
        )
        for option in OPTIONS
    ]
    places = [entry for entry in own if entry.kind == Parameter.POSITIONAL_OR_KEYWORD]
    return _with_parameters(
        verb, [*places, *options, *(entry for entry in own if entry.kind == Parameter.KEYWORD_ONLY)]
    )


def _typer_option(option: Option) -> Any:
    """One that is given or not has no other name for not given."""
    if option.type is bool:
        return typer.Option(option.flag, help=option.help)
    return typer.Option(help=option.help, metavar=option.metavar)


def _with_parameters(verb: Callable[..., None], parameters: list[Parameter]) -> Callable[..., None]:
    vars(verb)["__signature__"] = Signature(parameters)
    verb.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    return verb
