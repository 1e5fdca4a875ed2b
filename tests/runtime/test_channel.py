"""Pieces go from one thread to another in order, and only a few of them wait in between."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wanc.runtime.channel import Channel, ChannelClosed


def test_pieces_arrive_in_order_and_few_wait() -> None:
    channel, most = Channel[int](2), 0

    def give() -> None:
        nonlocal most
        for number in range(100):
            channel.put(number)
            most = max(most, len(channel._pieces))
        channel.complete()

    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(give)
        assert list(channel) == list(range(100))
        given.result(timeout=30)
    assert 1 <= most <= 2


@pytest.mark.parametrize("given", [0, 1])
def test_who_waits_for_pieces_is_told_that_none_will_come(given: int) -> None:
    channel = Channel[int](2)
    for number in range(given):
        channel.put(number)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(lambda: list(channel))
        channel.close()
        with pytest.raises(ChannelClosed):
            taken.result(timeout=30)


def test_who_waits_for_room_is_told_that_nobody_takes() -> None:
    channel = Channel[int](1)
    channel.put(0)
    with ThreadPoolExecutor(1) as pool:
        given = pool.submit(channel.put, 1)
        channel.close()
        with pytest.raises(ChannelClosed):
            given.result(timeout=30)
    with pytest.raises(ChannelClosed):
        channel.put(2)


def test_what_was_complete_and_is_closed_has_nothing_more() -> None:
    channel = Channel[int](2)
    channel.put(1)
    channel.complete()
    channel.close()
    with pytest.raises(ChannelClosed):
        list(channel)


def test_what_is_closed_holds_nothing() -> None:
    channel = Channel[np.ndarray](2)
    piece = np.zeros(3)
    alive = weakref.ref(piece)
    channel.put(piece)
    del piece
    channel.close()
    gc.collect()
    assert alive() is None
