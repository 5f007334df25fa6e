"""What a pipe gets of messages and progress, and what Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Event

import pytest
from support.cli import harness

from harness.cli.show import print_table
from harness.cli.terminal import TERMINAL, exit_code_of
from harness.console import SILENT
from harness.errors import Interrupted, NotSavedError, TrialsFailed, UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def from_a_terminal():
    """Signals mean what they do there, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def handlers():
    """Those of before, which must be back after the test."""
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_trials_get_a_line_now_and_then_and_at_the_end(capsys, monkeypatch):
    """Two workers end a trial at the same time every 100 seconds, so that two take 100 more."""
    now = iter([0, 100, 100, 200, 200, 300, 300, 400, 400])
    monkeypatch.setattr("harness.cli.terminal.monotonic", lambda: next(now))
    with TERMINAL.progress("title", 8, "trials") as advance:
        for number in range(8):
            advance(f"best {number}")
    out, err = capsys.readouterr()
    said = ["6/8 trials, best 5, ETA 1 min 40 s", "8/8 trials, best 7"]
    assert out == "" and err.splitlines() == said


def test_a_search_without_a_known_end_counts_all_the_same(capsys):
    with TERMINAL.progress("title", None, "trials") as advance:
        for _ in range(6):
            advance("best")
    assert capsys.readouterr().err.splitlines() == ["6 trials, best"]


def test_names_in_brackets_are_no_markup(capsys):
    print_table(["name", "n"], [["[/b]", "1"], ["[red]", ":smile:"]])
    out = capsys.readouterr().out
    assert "[/b]" in out and "[red]" in out and ":smile:" in out
    with TERMINAL.progress("runs[/b]", 1, "trials") as advance:
        advance("[/red]")
    assert "1/1 trials, [/red]" in capsys.readouterr().err


def test_images_get_one_line(capsys):
    with TERMINAL.progress("Packing", 20, "images") as advance:
        for _ in range(20):
            advance("")
    assert capsys.readouterr().err == "Packing: 20 images\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_finishes_and_the_second_ends(capsys, handlers, number):
    stop = Event()
    ended = pytest.raises(Interrupted, match=r"^Ended\. The same command continues")
    with ended, TERMINAL.interruptible(stop):
        os.kill(os.getpid(), number)
        assert stop.is_set()
        os.kill(os.getpid(), number)
        raise AssertionError("the second signal was not heard")
    assert "press Ctrl-C again to end now" in capsys.readouterr().err


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("as_what", [None, ImportError])
def test_a_command_that_is_still_importing_ends_with_130(monkeypatch, handlers, number, as_what):
    def importing(*_):
        try:
            os.kill(os.getpid(), number)
            Event().wait(5)
        except KeyboardInterrupt:
            if as_what is None:
                raise
            raise as_what("a module that was cut off") from None

    monkeypatch.setattr("harness.store.runs.known_run", importing)
    result = harness("status", "any")
    assert result.exit_code == 130
    assert result.stderr == "Ended. The same command continues from here.\n"


def test_nohup_is_respected(handlers):
    before, stop = signal.signal(signal.SIGHUP, signal.SIG_IGN), Event()
    try:
        with TERMINAL.interruptible(stop):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_the_program_ends_with_130_from_its_first_moment(number):
    """A signal at the first line of the command line's own package, which is not imported yet."""
    code = (
        "import os, sys\n"
        "class Here:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'harness.cli': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Here())\n"
        "from harness.__main__ import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "Ended.\n")


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
