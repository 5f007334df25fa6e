"""A study small enough to have a table made of it in a test, and the command that replays one."""

from __future__ import annotations

from harness.catalogue.studies import load_study
from support.cli import harness

DEPTHS = tuple(f"last:{n}" for n in (1, 6, 12))


def small_study(**changes):
    """joint_space with 2 x 3 x 3 cells and two seeds."""
    study = load_study("joint_space")
    values = {"positions": ("mlp1", "out"), "depth": DEPTHS, "alpha": (1.0, 4.0, 128.0)}
    axes = [axis.model_copy(update={"values": values[axis.field]}) for axis in study.axes]
    return study.derive(**{"axes": tuple(axes), "seeds": (0, 1), "views": (), **changes})


def compare(root, table, *args):
    return harness(*("compare", "--study", "joint_space", "--replay", table, "--out", root, *args))
