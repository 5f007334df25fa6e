"""An engine whose trials are written to loggers while they run.

A thread of the driver's reads the epochs that trials add to the store, wherever their workers
are, so that no worker needs a logger's package, and a logger has one writer. Owns: what is read
when, and that a logger which fails loses no trial. Must not know: which loggers or
engines there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.console import Console
from harness.engines.base import Ended, Engine, Reported
from harness.export.loggers import Logger, check_logs, open_logger
from harness.export.scalars import finals, scalars, settings
from harness.spec import TrialSpec
from harness.store.store import Store

POLL_S = 1.0
"""How often the store is asked for new epochs."""
PATIENCE_S = 120.0
"""What loggers have to write what is left when all trials have ended."""


@dataclass
class Logs:
    """The loggers of a command, by the words that name them; those that failed are gone."""

    loggers: dict[str, Logger]
    console: Console

    @classmethod
    def of(cls, given: tuple[str, ...], run: str, console: Console, *, is_dry: bool) -> Logs | None:
        """None where none is asked for, or nothing is to be written.

        Raises:
            UserError: one of them cannot be used.
        """
        check_logs(given)
        if is_dry or not given:
            return None
        return cls({text: open_logger(text, run) for text in given}, console)

    def each(self, write: Callable[[Logger], None]) -> None:
        """Have every logger write; one that fails is said and left out from then on."""
        for text, logger in list(self.loggers.items()):
            try:
                write(logger)
            except Exception as error:  # of any kind: each tool has errors of its own
                del self.loggers[text]
                self.console.warn(
                    f"--log {text} failed and is left out from here on; no trial is lost: "
                    f"{type(error).__name__}: {error}"
                )


@dataclass
class _Followed:
    """A trial that a worker has."""

    spec: TrialSpec
    epochs: int = 0
    """That were logged."""
    is_over: bool = False


@dataclass
class LoggedEngine:
    """An engine as it is, followed by loggers."""

    engine: Engine
    store: Store
    logs: Logs
    _new: list[TrialSpec] = field(default_factory=list)
    _followed: dict[str, _Followed] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _is_closed: bool = False

    def __post_init__(self) -> None:
        self.slots = self.engine.slots
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def submit(self, spec: TrialSpec) -> None:
        self.engine.submit(spec)
        with self._lock:
            self._new.append(spec)
            self._over.discard(spec.trial_id)  # it was paused, and goes on
        self._wake.set()

    def next(self) -> Ended | Reported:
        event = self.engine.next()
        if isinstance(event, Ended) and event.crash is None:  # a crashed one may be tried again
            with self._lock:
                self._over.add(event.spec.trial_id)
        self._wake.set()
        return event

    def answer(self, spec: TrialSpec, goes_on: bool) -> None:
        self.engine.answer(spec, goes_on)

    def close(self) -> None:
        """End all workers, then write what they left."""
        self.engine.close()
        self._is_closed = True
        self._wake.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self.logs.console.warn(
                f"Loggers had not ended after {PATIENCE_S:.0f} s, and are left behind; no trial is "
                "lost."
            )

    def _follow(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(POLL_S)
            self._wake.clear()
            is_last = self._is_closed  # read before the look around that may then be the last
            with self._lock:
                new, self._new = self._new, []
                over, self._over = self._over, set()
            for spec in new:
                self._begin(spec)
            for each in list(self._followed.values()):
                self._write(each, is_over=is_last or each.spec.trial_id in over)

    def _begin(self, spec: TrialSpec) -> None:
        key = spec.trial_id
        if key in self._followed:  # tried again after its worker died
            return
        name = f"{spec.method},seed={spec.seed},{key}"
        self.logs.each(lambda logger: logger.begin(key, name, settings(spec)))
        self._followed[key] = _Followed(spec)

    def _write(self, each: _Followed, *, is_over: bool) -> None:
        key = each.spec.trial_id
        try:
            rows = self.store.history(key)
            record = self.store.record(key) if is_over else None
        except (OSError, ValueError):  # the driver says what is wrong with the store
            rows, record = [], None
        for row in rows:
            epoch = row["epoch"] + 1
            if epoch > each.epochs:
                each.epochs, found = epoch, scalars(row)
                self.logs.each(lambda logger, at=epoch, of=found: logger.log(key, at, of))  # type: ignore[misc]
        if is_over:
            status = "UNFINISHED" if record is None else record.status
            last = {} if record is None else finals(record)
            self.logs.each(lambda logger: logger.end(key, status, each.epochs, last))
            del self._followed[key]
