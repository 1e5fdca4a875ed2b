"""How long a reader takes for what it refuses, and how much memory: the limits that hold for every one of them."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

from wanc.runtime.errors import UserError

MOST_SECONDS = 1.0
MOST_BYTES = 200 * 2**20


def assert_read_or_refused(read: Callable[[], object]) -> UserError | None:
    """`read` ends well or with a UserError, which is returned, within a second and 200 MB; anything else fails.

    Memory is what Python and numpy ask for. The time is the process's own: waiting for a disk makes no reader slow.
    """
    refusal: UserError | None = None
    started = time.process_time()
    try:
        read()
    except UserError as error:
        assert error.message
        refusal = error
    assert time.process_time() - started < MOST_SECONDS
    # Once more, because tracing makes everything several times slower.
    tracemalloc.start()
    try:
        with suppress(UserError):
            read()
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    return refusal
