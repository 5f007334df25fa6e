"""Data sheets of the tables that ship: what stands in each, how it was made, what it cannot say.

Owns: their words. Facts are read from the table. Must not know: archives, how a table is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from harness.findings.evidence import command_of
from harness.metrics import Objective
from harness.store.shipped import LINES
from harness.store.table import Table
from harness.study.axes import Axis, in_a_list, in_words

OURS = "Apache-2.0, as this repository: the harness draws the images itself, from a seed."
THEIRS = (
    "The table, Apache-2.0 as this repository. No image and no weight is in it; {data} has terms "
    "of its own, which whoever gives you the images states."
)
CHOSEN: dict[Objective, str] = {
    "class_mean": "class mean",
    "micro": "share of images that are right",
}
PROTOCOL_LIMITS = (
    "Which search is better over many configurations: its space is small, and a budget of 12 runs "
    "tries a large part of it ([protocol](protocol.md#what-it-cannot-say)). Nothing on searches "
    "that stop trials early: only the last epoch was scored, so `tpe+hyperband` is left out. "
    "Nothing on other backbones, ranks or longer training."
)


class Words(NamedTuple):
    """What no table says of itself."""

    data: str
    chosen_on: str
    seed: str
    """What a seed stands for."""
    again: str
    """How to make it again, and the files that this needs."""
    licence: str
    limits: str


def _of_protocol(scenario: str, data: str, needs: str, licence: str, limits: str) -> Words:
    return Words(
        data=data,
        chosen_on="a balanced dev set that nothing is trained on",
        seed="one replicate of the whole procedure: it draws the tail, the dev set and all chance "
        "of training",
        again=f"`python -m harness.findings.tables`, from `reports/archives/protocol_{scenario}_*` "
        f"and without training; those by `{command_of(scenario)}`. {needs}",
        licence=licence,
        limits=f"{limits} {PROTOCOL_LIMITS}",
    )


WORDS = {
    "joint_space": Words(
        data="**SYNTHETIC**: `synth-rs`, 15 classes drawn by the harness, imbalance 86",
        chosen_on="a fifth of the training images, in which six classes have one image",
        seed="one training",
        again="`python -m harness.findings.tables`, from `reports/archives/joint_space*` and "
        "without training; those by the two commands above and `harness archive`, in two hours. No "
        "file but the repository's is needed",
        licence=OURS,
        limits="Which search is better on other seeds: three are too few for a verdict over seeds. "
        "Anything about sensors: it is synthetic, and its backbone "
        "tiny. The validation split is small, so choices by it are noisy. The rate, batch and crop "
        "were fixed at MLP1 in all blocks and α = 4 with test scores in view. Its depth is "
        "*the last N blocks* of one position, so combinations of positions are not in it",
    ),
    "synth_rs": _of_protocol(
        "synth_rs",
        "**SYNTHETIC**: `synth-rs`, 15 classes drawn by the harness, imbalance 86",
        "No file but the repository's is needed.",
        OURS,
        "Anything about sensors: it is synthetic, and its backbone tiny.",
    ),
    "mstar": _of_protocol(
        "mstar",
        "not synthetic: MSTAR, SAR chips of vehicles, 10 classes, imbalance 10 made by leaving "
        "images out, background blackened",
        "Training needs the MSTAR images and the weights of a ViT-Tiny "
        "([which](measured.md#inputs-of-the-real-scenarios)); the table alone needs neither.",
        THEIRS.format(data="MSTAR"),
        "Anything about other SAR sensors, or about targets in clutter.",
    ),
    "aid": _of_protocol(
        "aid",
        "not synthetic: AID, aerial scenes, 30 classes, imbalance 10 made by leaving images out",
        "Training needs the AID images and the weights of a ViT-Tiny "
        "([which](measured.md#inputs-of-the-real-scenarios)); the table alone needs neither.",
        THEIRS.format(data="AID"),
        "Anything about other resolutions or regions.",
    ),
}
GAMMA = "_gamma"
"""What ends the name of a scenario's table of MetaPEFT."""


def sheets(tables: Mapping[str, Table], sizes: Mapping[str, int]) -> str:
    """Markdown of a section for each table, by name; `sizes` of their files in bytes."""
    return "\n".join(_sheet(name, table, sizes[name]) for name, table in tables.items())


def _sheet(name: str, table: Table, size: int) -> str:
    info, words = table.info, WORDS[name.removesuffix(GAMMA)]
    study, recipe = info.study, info.study.base.recipe
    last = table.trials
    diverged = int((last["status"] == "DIVERGED").sum())
    seeds = _range(study.seeds)
    full = ", ".join(f"{field} {in_words(value)}" for field, value in info.reference.cell.items())
    versions = {key: info.environment.get(key, "not recorded") for key in ("semantics", "torch")}
    devices = ", ".join(f"{device} ({count} trials)" for device, count in info.devices.items())
    rows = {
        "data": words.data,
        "backbone": f"`{study.base.backbone.name}`, {info.num_classes} classes, batch "
        f"{recipe.batch_size}, {recipe.epochs} epochs",
        "space": _space(table),
        "cells, seeds, trials": f"{info.cells}, {len(study.seeds)}, {len(last)} "
        f"({diverged} of them diverged)",
        "seeds": f"{seeds}; each is {words.seed}",
        "objective": f"{CHOSEN.get(study.objective, study.objective)} on {words.chosen_on}; "
        "test scores are shown, and no search sees them",
        "scored": "after every epoch" if recipe.score_epochs == "all" else "after the last epoch",
        "a full run": f"{full}: {info.reference.flops:.3g} FLOPs, {info.reference.device_s:.1f} "
        "device seconds",
        "made by": ", ".join(f"`{command}`" for command in info.commands),
        "trained on": f"{devices}; torch {versions['torch']}, SEMANTICS {versions['semantics']}",
        "to make it again": words.again,
        "licence": words.licence,
        "cannot say": words.limits,
    }
    lines = [f"| {key} | {str(text).rstrip('.')} |" for key, text in rows.items()]
    head = f"### {name}\n\n{LINES[name]}. {size / 1000:.0f} kB.\n\n| | |\n|---|---|\n"
    return head + "\n".join(lines) + "\n"


def _space(table: Table) -> str:
    axes = [part for part in table.info.study.axes if isinstance(part, Axis)]
    parts = [f"{axis.label}: {', '.join(map(in_a_list, axis.values))}" for axis in axes]
    beside = sorted(set(table.trials["method"].dropna())) if "method" in table.rows else []
    if beside:
        parts.append(f"beside it {' and '.join(beside)}, at given settings")
    return "; ".join(parts)


def _range(seeds: tuple[int, ...]) -> str:
    whole = seeds == tuple(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if whole and len(seeds) > 2 else ", ".join(map(str, seeds))
