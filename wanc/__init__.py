"""wanc: an offline compiler for text-to-video diffusion models."""

from importlib import import_module

from wanc.runtime.version import VERSION

__version__ = VERSION

NAMES = (
    "BuildResult", "Limits", "Quota", "VariantsError", "build", "build_variants", "open", "open_graph", "open_service",
)  # fmt: skip


def __getattr__(name: str) -> object:
    """What `wanc.api` has, which is loaded when it is first asked for."""
    if name in NAMES:
        return getattr(import_module("wanc.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
