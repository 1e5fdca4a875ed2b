"""How a request ends is decided once: done, failed, cancelled or late. The clock is a test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from wanc.runtime.errors import EXIT_TEMPORARY, DeadlineExceeded, RequestCancelled, UserError
from wanc.runtime.ticket import CANCELLED, DONE, FAILED, LATE, OPEN, Ticket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_done_is_there_for_everybody() -> None:
    ticket = Ticket[int]()
    assert (ticket.done(), ticket.outcome) == (False, OPEN)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ticket.result) for _ in range(3)]
        ticket.check()
        ticket.finish(7)
        assert [future.result(timeout=30) for future in waiting] == [7] * 3
    assert (ticket.done(), ticket.outcome, ticket.cancel()) == (True, DONE, False)


def test_what_failed_is_told_as_it_is() -> None:
    ticket, error = Ticket[int](), ZeroDivisionError("by zero")
    ticket.fail(error)
    ticket.finish(7)
    with pytest.raises(ZeroDivisionError) as caught:
        ticket.result()
    assert caught.value is error
    assert ticket.outcome == FAILED


def test_what_is_cancelled_is_not_done() -> None:
    ticket = Ticket[int]()
    assert ticket.cancel()
    ticket.finish(7)
    ticket.fail(ZeroDivisionError())
    for ask in (ticket.result, ticket.check, ticket.commit):
        with pytest.raises(RequestCancelled) as caught:
            ask()
        assert isinstance(caught.value, UserError) and caught.value.exit_code == EXIT_TEMPORARY
    assert ticket.outcome == CANCELLED


def test_a_deadline_is_kept_by_whoever_looks(clock: Clock) -> None:
    looks: list[Callable[[Ticket[int]], object]] = [
        lambda ticket: ticket.result(),
        lambda ticket: ticket.check(),
        lambda ticket: ticket.commit(),
        lambda ticket: (ticket.done(), ticket.result()),
        lambda ticket: (ticket.finish(7), ticket.result()),
    ]
    for look in looks:
        clock.now = 10.0
        ticket = Ticket[int](2.5, clock)
        clock.now = 12.4
        ticket.check()
        clock.now = 12.5
        with pytest.raises(DeadlineExceeded, match=r"the request was not done within 2\.5 s"):
            look(ticket)
        assert ticket.outcome == LATE
        assert not ticket.cancel()


def test_who_waits_is_told_at_the_deadline_though_nobody_works() -> None:
    """With a real clock: whatever the threads are busy with, it does not hold up who waits."""
    with pytest.raises(DeadlineExceeded):
        Ticket[int](0.01).result()


def test_waiting_has_an_end_of_its_own(clock: Clock) -> None:
    ticket = Ticket[int](100.0)
    with pytest.raises(TimeoutError):
        ticket.result(timeout=0.01)
    assert not ticket.done()
    ticket.finish(7)
    assert ticket.result(timeout=0) == 7


def test_what_is_being_put_in_place_is_neither_cancelled_nor_late(clock: Clock) -> None:
    ticket = Ticket[int](1.0, clock)
    ticket.commit()
    clock.now = 2.0
    assert not ticket.cancel()
    assert not ticket.done()
    ticket.check()
    ticket.finish(7)
    assert ticket.result() == 7


def test_putting_in_place_may_fail(clock: Clock) -> None:
    ticket = Ticket[int]()
    ticket.commit()
    ticket.fail(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        ticket.result()


def test_callbacks_are_called_once() -> None:
    ticket = Ticket[int]()
    told: list[str] = []
    ticket.add_done_callback(lambda done: told.append(f"first {done.outcome}"))
    ticket.cancel()
    ticket.fail(ZeroDivisionError())
    ticket.add_done_callback(lambda done: told.append(f"second {done.outcome}"))
    assert told == ["first cancelled", "second cancelled"]


def test_a_callback_that_fails_fails_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    ticket = Ticket[int]()
    told: list[str] = []

    def failing(_: Ticket[int]) -> None:
        raise ZeroDivisionError

    ticket.add_done_callback(failing)
    ticket.add_done_callback(lambda done: told.append(done.outcome))
    ticket.finish(7)
    assert (told, ticket.result()) == (["done"], 7)
    assert "a callback of a request has failed" in caplog.text


def test_one_of_many_threads_decides() -> None:
    for _ in range(50):
        ticket, barrier, told = Ticket[int](), threading.Barrier(4), list[str]()
        ticket.add_done_callback(lambda done, told=told: told.append(done.outcome))

        def work(number: int, ticket: Ticket[int] = ticket, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(30)
            if number % 2:
                return ticket.cancel()
            ticket.finish(number)
            return False

        with ThreadPoolExecutor(4) as pool:
            cancelled = list(pool.map(work, range(4)))
        assert told == [ticket.outcome]
        assert any(cancelled) == (ticket.outcome == CANCELLED)


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan")])
def test_a_deadline_lies_ahead(deadline: float) -> None:
    with pytest.raises(UserError, match="a deadline of"):
        Ticket[int](deadline)
