"""How people name a Ray cluster that is running: `ray:HOST:PORT`, or `ray://HOST:PORT`, which means the same."""

from __future__ import annotations

import re

_CLUSTER = re.compile(r"ray:(?://)?(?P<address>[^/\s]+:[0-9]{1,5})")


def cluster_address(text: str) -> str | None:
    """The address that `ray.init` takes; None of a text that names no cluster."""
    found = _CLUSTER.fullmatch(text)
    return found["address"] if found else None
