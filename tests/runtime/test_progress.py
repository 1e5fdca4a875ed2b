"""The progress bar, drawn on a terminal of the test's own and by its own clock."""

from __future__ import annotations

import io

import pytest

from wanc.runtime.progress import Bars, ProgressBar, format_seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was drawn, one entry per redraw."""
        return [line.removesuffix("\n").removesuffix("\x1b[K") for line in self.getvalue().split("\r")[1:]]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_the_bar_shows_share_time_and_time_left() -> None:
    terminal, clock = Terminal(), Clock()
    with ProgressBar("denoise", total=40, stream=terminal, clock=clock) as bar:
        for _ in range(4):
            clock.now += 30
            bar.advance(10)
    assert terminal.lines() == [
        "denoise [------------------------] 0/40 0:00",
        "denoise [######------------------] 10/40 0:30",
        "denoise [############------------] 20/40 1:00",
        "denoise [##################------] 30/40 1:30, 0:30 left",
        "denoise [########################] 40/40 2:00",
        "denoise [########################] 40/40 2:00",
    ]
    assert terminal.getvalue().endswith("\n")


def test_it_redraws_ten_times_a_second_at_most() -> None:
    terminal, clock = Terminal(), Clock()
    with ProgressBar("decode", total=1000, stream=terminal, clock=clock) as bar:
        for _ in range(1000):
            clock.now += 0.001
            bar.advance()
    # One at the start, one per tenth of the second, one at the end.
    assert 10 <= len(terminal.lines()) <= 12
    assert terminal.lines()[-1].startswith("decode [########################] 1000/1000")


def test_output_is_plain_text_with_nothing_but_line_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with ProgressBar("denoise", total=2, stream=terminal) as bar:
        bar.advance()
    assert terminal.getvalue().replace("\x1b[K", "").replace("\r", "").replace("\n", "").isprintable()
    assert terminal.getvalue().isascii()


def test_nothing_is_written_when_it_is_not_enabled_or_not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, log, dumb = Terminal(), io.StringIO(), Terminal()
    for enabled, stream in ((False, terminal), (True, log)):
        with ProgressBar("denoise", total=2, enabled=enabled, stream=stream) as bar:
            bar.advance(2)
    monkeypatch.setenv("TERM", "dumb")
    with ProgressBar("denoise", total=2, stream=dumb) as bar:
        bar.advance(2)
    assert (terminal.getvalue(), log.getvalue(), dumb.getvalue()) == ("", "", "")


def test_it_writes_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("denoise", total=1) as bar:
        bar.advance()
    # Captured output is no terminal.
    assert capsys.readouterr() == ("", "")


def test_a_failure_leaves_the_last_state_and_ends_the_line() -> None:
    terminal = Terminal()
    with pytest.raises(KeyError), ProgressBar("denoise", total=4, stream=terminal) as bar:
        bar.advance(3)
        raise KeyError
    assert terminal.lines()[-1].startswith("denoise [##################------] 3/4")
    assert terminal.getvalue().endswith("\n")


def test_a_narrow_terminal_cuts_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    with ProgressBar("denoise", total=4, stream=terminal):
        pass
    assert {len(line) for line in terminal.lines()} == {19}


def test_a_total_of_zero_is_complete() -> None:
    terminal = Terminal()
    with ProgressBar("copy", total=0, stream=terminal):
        pass
    assert terminal.lines()[-1] == "copy [########################] 0/0 0:00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (9.6, "0:10"), (59.4, "0:59"), (75, "1:15"), (3599.9, "1:00:00"), (36_061, "10:01:01")],
)
def test_times(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_every_phase_has_a_bar_of_its_own() -> None:
    terminal = Terminal()
    with Bars(stream=terminal) as on_progress:
        for phase, total in (("verify", 0), ("verify", 2), ("denoise", 3), ("denoise", 3)):
            for done in range(total + 1):
                on_progress(phase, done, total)
    lines = [line.split("] ")[-1].split(" 0:00")[0] for line in terminal.getvalue().split("\n")]
    assert lines == ["0/0", "2/2", "3/3", "3/3", ""]
    labels = [line.split("\r")[-1].split(" ")[0] for line in terminal.getvalue().split("\n")]
    assert labels == ["verify", "verify", "denoise", "denoise", ""]


def test_a_phase_that_ends_early_leaves_its_last_state() -> None:
    terminal = Terminal()
    with Bars(stream=terminal) as on_progress:
        on_progress("denoise", 0, 4)
        on_progress("denoise", 1, 4)
        on_progress("decode", 0, 2)
    assert [line.split("\r")[-1].split("] ")[-1][:3] for line in terminal.getvalue().split("\n")] == ["1/4", "0/2", ""]


def test_bars_that_nobody_wants_are_not_drawn() -> None:
    terminal = Terminal()
    with Bars(enabled=False, stream=terminal) as on_progress:
        on_progress("denoise", 0, 4)
        on_progress("denoise", 4, 4)
    assert terminal.getvalue() == ""
