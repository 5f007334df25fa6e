"""Runs whose trials have the scores that a test gives them, and what figures say of them."""

from __future__ import annotations

import csv

from harness.driver.plan import make_plan
from harness.metrics import SplitMetrics
from harness.runner.runtime import Runtime
from harness.store.runs import write_run
from harness.store.store import Store
from harness.study.axes import Axis
from harness.study.figures import View
from harness.study.study import Study
from support.records import TINY, publish


def scored(value, count=80):
    """Scores whose class mean is `value`: head 0.1 above, tail 0.1 below."""
    groups = {"head": value + 0.1, "medium": value, "tail": value - 0.1}
    return SplitMetrics(
        class_mean=value,
        group_mean=value,
        flat_mean=value,
        micro=value,
        groups=groups,
        groups_se={name: 0.02 for name in groups},
        per_class=(value,) * 15,
        class_counts=(count,) * 15,
        distance={name: 0.5 for name in groups},
        loss=1.0,
    )


def study(**changes):
    fields = dict(
        name="made",
        question="Which?",
        paper="Fig. 1(c)",
        base=TINY,
        axes=(
            Axis(field="positions", values=("mlp1", "q"), label="position"),
            Axis(field="depth", values=("last:1", "last:2", "last:3"), label="depth"),
        ),
        seeds=(0, 1),
        views=(View(kind="heatmap", rows="positions", columns="depth", title="Made"),),
        fixed="everything",
        reference="fig1c",
    )
    return Study(**{**fields, **changes})


def made_run(root, made, results):
    """A run folder whose trials are `results[cell index][seed]`.

    A result is a pair (selection, test) or a status; None publishes nothing.
    """
    store = Store(root)
    plan = make_plan(made, store=store, run_name=made.name, runtime=Runtime())
    plan.folder.path.mkdir(parents=True, exist_ok=True)
    write_run(plan.folder, plan.study, plan.cells, {"torch": "0"})
    cells = len(made.cells())
    for index, (_, spec) in enumerate(plan.cells):
        result = results[index % cells][index // cells]
        if isinstance(result, str):
            publish(store, spec, status=result)
        elif result is not None:
            publish(store, spec, select=scored(result[0]), test=scored(result[1]))
    return plan.folder


RESULTS = [
    [(0.50, 0.60), (0.52, 0.62)],
    [(0.70, 0.55), (0.72, 0.57)],
    ["DIVERGED", (0.40, 0.41)],
    [(0.60, 0.80), (0.62, 0.82)],
    ["FAILED", None],
    [None, None],
]


def texts(figure):
    return " | ".join(
        text.get_text().replace("\n", " ")
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))
    )


def write_trajectory(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trajectory.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def path(*ends):
    """Three rows from 1 to the end values, over two blocks and two positions."""
    sites = ("0.q", "0.mlp1", "1.q", "1.mlp1")
    return [
        {
            "outer_step": step,
            "inner_step": 2 * step,
            "outer_loss": float("nan"),
            **{s: 1 + (end - 1) * step / 2 for s, end in zip(sites, ends, strict=True)},
        }
        for step in range(3)
    ]


EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
