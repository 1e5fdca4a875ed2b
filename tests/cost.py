"""How long a reader takes for what it refuses, and how much memory: the limits that hold for every one of them."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from wanc.runtime.errors import UserError

MOST_SECONDS = 1.0
MOST_BYTES = 200 * 2**20


@contextmanager
def limited(seconds: float = MOST_SECONDS) -> Generator[None]:
    """The body takes at most so many seconds of the processor; waiting for a disk makes nothing slow.

    What other tests have left in memory is kept out of the collector, which would go through all of it.
    """
    gc.freeze()
    try:
        started = time.process_time()
        yield
        assert time.process_time() - started < seconds
    finally:
        gc.unfreeze()


def assert_read_or_refused(read: Callable[[], object]) -> UserError | None:
    """`read` ends well or with a UserError, which is returned, within a second and 200 MB; anything else fails.

    Memory is what Python and numpy ask for.
    """
    refusal: UserError | None = None
    with limited():
        try:
            read()
        except UserError as error:
            assert error.message
            refusal = error
    # Once more, because tracing makes everything several times slower.
    tracemalloc.start()
    try:
        with suppress(UserError):
            read()
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    return refusal
