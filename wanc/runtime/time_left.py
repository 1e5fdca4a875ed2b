"""How much longer a task takes: told where enough of it has been seen to tell it, and not at all otherwise."""

from __future__ import annotations

from bisect import bisect_left

STEADY = 1.1
"""An eighth of the work is as fast as the one before if it took at most so many times as long, or as short."""
LEAST_SECONDS = 5.0
"""Of less it is not worth telling: rounded to a second it would be another time."""
MOST_POINTS = 1024


class TimeLeft:
    """What is left of a task, from how fast its last two eighths were done.

    How it began says nothing of how it goes on: files are loaded first, and the second half of a list may hold what is
    larger. So a time is told once more than half of the work lies behind, in its pace now, and only while that is
    steady. A task that changes its pace in its last third is believed until it does.
    """

    def __init__(self, started: float) -> None:
        """`started` is the time at which nothing was done; times are seconds of any one clock."""
        self._done: list[float] = [0]
        self._times = [started]

    def note(self, done: int, now: float) -> None:
        """So much is done by now."""
        if done < self._done[-1]:  # counted anew
            self._done, self._times = [], []
        if not self._done or done > self._done[-1]:
            self._done.append(done)
            self._times.append(now)
        if len(self._done) > MOST_POINTS:
            del self._done[1:-1:2], self._times[1:-1:2]

    def seconds(self, total: int, now: float) -> float | None:
        """What is left of `total`, in seconds; None where that cannot be told."""
        eighth, done = total / 8, self._done[-1]
        if eighth < 1 or not 5 * eighth <= done < total or self._done[0] > done - 2 * eighth:
            return None
        recent = self._times[-1] - self._time_at(done - eighth)
        before = self._time_at(done - eighth) - self._time_at(done - 2 * eighth)
        if not 0 < max(recent, before) <= STEADY * min(recent, before):
            return None
        waited, interval = now - self._times[-1], self._times[-1] - self._times[-2]
        left = (total - done) / eighth * recent - waited
        return left if waited <= 1.5 * interval and left >= max(LEAST_SECONDS, interval) else None

    def _time_at(self, done: float) -> float:
        """When so much was done, between two notes in proportion."""
        index = max(1, bisect_left(self._done, done))
        (low, high), (since, until) = self._done[index - 1 : index + 1], self._times[index - 1 : index + 1]
        return since + (until - since) * (done - low) / (high - low)
