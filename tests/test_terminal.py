"""What a pipe gets of messages and progress, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
from threading import Event

import pytest

from harness.cli.terminal import TERMINAL, exit_code_of
from harness.console import SILENT
from harness.errors import Interrupted, NotSavedError, TrialsFailed, UserError


@pytest.fixture
def handlers():
    """Those of before, which must be back after the test."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_trials_get_a_line_now_and_then_and_at_the_end(capsys):
    with TERMINAL.progress("title", 8, "trials") as advance:
        for number in range(8):
            advance(f"best {number}")
    out, err = capsys.readouterr()
    lines = [line.partition(", ETA")[0] for line in err.splitlines()]
    assert out == "" and lines == ["6/8 trials, best 5", "8/8 trials, best 7"]


def test_a_search_without_a_known_end_counts_all_the_same(capsys):
    with TERMINAL.progress("title", None, "trials") as advance:
        for _ in range(6):
            advance("best")
    assert capsys.readouterr().err.splitlines() == ["6 trials, best"]


def test_images_get_one_line(capsys):
    with TERMINAL.progress("Packing", 20, "images") as advance:
        for _ in range(20):
            advance("")
    assert capsys.readouterr().err == "Packing: 20 images\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_and_the_second_ends(capsys, handlers, number):
    stop = Event()
    ended = pytest.raises(Interrupted, match=r"^Ended\. The same command continues")
    with ended, TERMINAL.interruptible(stop):
        os.kill(os.getpid(), number)
        assert stop.is_set()
        os.kill(os.getpid(), number)
        raise AssertionError("the second signal was not heard")
    assert "press Ctrl-C again to end now" in capsys.readouterr().err


def test_a_silent_console_leaves_ctrl_c_to_python(capsys, handlers):
    stop = Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:  # a shell's background job, such as these tests may be, has it ignored
        with pytest.raises(KeyboardInterrupt), SILENT.interruptible(stop):
            os.kill(os.getpid(), signal.SIGINT)
            stop.wait(5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not stop.is_set()
    SILENT.say("a")
    SILENT.warn("b")
    with SILENT.progress("c", 1, "trials") as advance:
        advance("d")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error,code,words",
    [
        (TrialsFailed("2 trials failed."), 1, "2 trials failed."),
        (UserError("No such study."), 2, "Error: No such study."),
        (NotSavedError("No room."), 3, "Error: No room."),
        (OSError("No room."), 3, "Error: No room."),
        (Interrupted("Stopped."), 130, "Stopped."),
    ],
)
def test_every_way_to_end_has_its_sentence_and_code(capsys, error, code, words):
    assert exit_code_of(error) == code
    assert capsys.readouterr() == ("", f"{words}\n")


@pytest.mark.parametrize("error", [BrokenPipeError(), ZeroDivisionError("a mistake of ours")])
def test_what_is_no_way_to_end_is_raised_again(capsys, error):
    with pytest.raises(type(error)) as raised:
        exit_code_of(error)
    assert raised.value is error and capsys.readouterr() == ("", "")
