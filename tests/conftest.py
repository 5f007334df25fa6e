"""Shared pieces: small backbones on random weights, and everything on one thread."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import torch
from support.backbones import BACKBONES
from support.few import FewRS
from support.here import Here

from harness.data.contract import DATASETS
from harness.model.backbones import load_backbone

torch.set_num_threads(1)
# Ray gives its workers a low priority, so that beside other tests they would hardly run at all.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def backbones():
    """name -> (spec, frozen model); shared, because attaching must leave no trace."""
    cpu = torch.device("cpu")
    return {name: (spec, load_backbone(spec, cpu)) for name, spec in BACKBONES.items()}


LOCAL_ENGINE = "harness.driver.setup.LocalEngine"


@pytest.fixture
def trained_here(monkeypatch):
    """The trials of sweeps train in the test's own process."""
    monkeypatch.setattr(LOCAL_ENGINE, Here)


@pytest.fixture(scope="module")
def all_trained_here():
    """So do those of a whole file and of its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOCAL_ENGINE, Here)
        yield


@pytest.fixture(scope="module")
def few_images():
    """`few-rs` is a dataset, for the tests of one file."""
    DATASETS.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS._entries, "few-rs", FewRS)
        yield


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster of this machine alone, with room for three workers."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    yield made.address
    made.shutdown()


LEFT_OUT = pytest.StashKey[Counter]()
"""Tests of every file that the command line deselects, as `make check` does with slow ones."""


def pytest_configure(config):
    config.stash[LEFT_OUT] = Counter()


def pytest_deselected(items):
    for item in items:
        item.config.stash[LEFT_OUT][item.path.name] += 1


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist's
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Every process deselects the same tests."""
    if not node.config.stash[LEFT_OUT]:
        node.config.stash[LEFT_OUT].update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash[LEFT_OUT]
    if left_out:
        by_file = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        terminalreporter.line(f"Left out, {left_out.total()} tests: {by_file}")
