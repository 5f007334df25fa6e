"""`harness list`: what there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import examples
from harness.cli.show import print_table
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.registry import Registry
    from harness.spec.fields import FieldWords

Listed = tuple[list[str], list[list[str]]]
"""The words above a list's columns, and its rows."""


@click.command(
    "list",
    epilog=examples(
        "list studies",
        "list searches",
        "list tables",
        "list methods lora",
        "list datasets folder",
        "list fields recipe",
    ),
)
@click.argument(
    "kind",
    type=click.Choice(
        ["methods", "studies", "datasets", "backbones", "searches", "tables", "fields"]
    ),
)
@click.argument("name", required=False)
def list_(kind: str, name: str | None) -> None:
    """List what there is: methods, studies, datasets, backbones, searches, tables for `compare
    --replay`, or fields of a trial.

    With the NAME of a method or a dataset: its settings, with what they take and their defaults; of
    fields, with the beginning of their names. A study may set other defaults. What an installed
    package brings stands there with its name and version.

    The time of a study is estimated from one trial that is timed for a moment on this machine, once
    for every version, and kept in the user's cache folder. It is that of one worker for all trials,
    whether or not some have been run.
    """
    if name is None:
        print_table(*_LISTS[kind]())
        if kind in ("methods", "datasets"):
            click.echo(f"\nThe settings of one: harness list {kind} NAME")
        return
    if kind not in _SETTINGS:
        raise UserError(
            f"harness list {kind} takes no name; of {' and '.join(_SETTINGS)} one can be named."
        )
    print_table(*_SETTINGS[kind](name))


def _kept_settings(kind: str, find: Callable[[str], Listed]) -> Callable[[str], Listed]:
    """The settings of one method or dataset, kept where its name makes the name of a file."""

    def listed(name: str) -> Listed:
        is_plain = re.fullmatch(r"[\w+.-]+", name) is not None
        return _kept(kind, partial(find, name), f"-{name}")() if is_plain else find(name)

    return listed


def _settings_of_method(name: str) -> Listed:
    from harness.insertion.method import get_method
    from harness.spec import TrialRequest
    from harness.spec.fields import fields_of
    from harness.spec.sites import DEPTH_FORMS

    method = get_method(name)
    placed = {field.name: field for field in fields_of(TrialRequest)}
    allowed, own = ", ".join(method.positions), ",".join(method.default_positions)
    rows: list[FieldWords] = []
    if method.positions:
        rows.append(placed["positions"]._replace(takes=f"some of {allowed}", default=own))
        rows.append(placed["depth"]._replace(takes=DEPTH_FORMS))
    if method.additive:
        rows.append(placed["alpha"])
    rows += fields_of(method.Options, "options.")
    return _fields(rows)


def _settings_of_dataset(name: str) -> Listed:
    from harness.data.contract import DATASETS
    from harness.spec.fields import fields_of

    return _fields(fields_of(DATASETS.get(name).Options, "data.options."))


def _list_fields(beginning: str = "") -> Listed:
    from harness.errors import unknown
    from harness.spec import TrialRequest
    from harness.spec.fields import fields_of

    every = list(fields_of(TrialRequest))
    rows = [field for field in every if field.name.startswith(beginning)]
    if not rows:
        raise unknown("field", beginning, [field.name for field in every])
    return _fields(rows)


def _fields(rows: Iterable[FieldWords]) -> Listed:
    """Of what a field is, its first sentence."""
    named = [[*row[:3], row.meaning.partition(". ")[0].removesuffix(".")] for row in rows]
    return ["--set", "takes", "default", "what it is"], named


def _kept(kind: str, find: Callable[[], Listed], of_one: str = "") -> Callable[[], Listed]:
    """The same list without torch, where it was made before and all that is on it ships."""

    def listed() -> Listed:
        from harness.catalogue.answers import kept, machine
        from harness.registry import installed

        if installed(f"harness.{kind}"):
            return find()
        of = machine() if kind == "studies" else None
        header, rows = kept(f"list-{kind}{of_one}", find, of=of)
        return header, rows

    return listed


def _list_methods() -> Listed:
    from harness.insertion.method import METHODS

    rows = []
    for name, kind, words in _registered(METHODS):
        method = kind()
        options = ", ".join(f"{k}={v}" for k, v in method.Options().model_dump().items())
        rows.append([name, words, ",".join(method.positions) or "-", options or "-"])
    return ["method", "what it is", "positions", "options"], rows


def _list_studies() -> Listed:
    from harness.bench.estimate import Estimate, trial_count
    from harness.catalogue.studies import load_study, study_names
    from harness.console import duration
    from harness.driver.request import PlaceRequest
    from harness.driver.setup import make_runtime

    runtime = make_runtime(PlaceRequest())
    reference = load_study("depth_vs_position").base.with_values(
        {"positions": "mlp1"}, source="depth_vs_position"
    )
    estimate = Estimate(reference, runtime)
    rows = []
    for name in study_names():
        study = load_study(name)
        trials, device_s = trial_count(study), estimate.device_s(study)
        cost = "unknown" if device_s is None else f"~{duration(device_s)}" if trials else "none"
        rows.append([name, study.paper, str(trials), cost, study.question])
    header = ["study", "paper", "trials", f"{runtime.device} time, est.", "question"]
    return header, rows


def _list_datasets() -> Listed:
    from harness.data.contract import DATASETS

    return ["dataset", "what it is"], [[name, words] for name, _, words in _registered(DATASETS)]


def _list_backbones() -> Listed:
    from harness.model.backbones import BACKBONES, EMBEDDED, PRESETS
    from harness.model.blocks import POSITIONS_MEAN, SUPPORTED

    rows = [[name, "embedded, pre-trained on SYNTHETIC data"] for name in EMBEDDED]
    rows += [[name, words] for name, words in PRESETS.items()]
    rows += [[name, words] for name, _, words in _registered(BACKBONES)]
    rows += [["any timm name", SUPPORTED], ["(positions)", POSITIONS_MEAN]]
    return ["backbone", "what it is"], rows


def _list_searches() -> Listed:
    from harness.registry import load_entry, origin
    from harness.search.catalogue import POPULATION, clashing_searches, installed_searches
    from harness.search.optuna_search import PRUNERS, SAMPLERS

    rows = [["grid", "every cell of the study's axes once, for every seed"]]
    rows += [[name, f"{_SAMPLED[name]} (Optuna)"] for name in SAMPLERS]
    stops = [name for name in PRUNERS if name != "none"]
    rows += [
        [f"SAMPLER+{name}", f"a sampler whose bad trials are stopped early: {_STOPPED[name]}"]
        for name in stops
    ]
    rows += [[POPULATION, "population-based training; --budget is its members"]]
    rows += [["metapeft", "learns the strengths of all sites in one trial; --budget is restarts"]]
    rows += [[name, f"trains once the half of the sites that {words}"] for name, words in _RANKED]
    for name, entries in installed_searches().items():
        try:
            load_entry("search", entries)
        except UserError as error:
            click.echo(str(error), err=True)
        else:
            rows.append([name, f"from {origin(entries[0])}"])
    for sentence in clashing_searches():
        click.echo(sentence, err=True)
    return ["search", "what it is"], rows


def _list_tables() -> Listed:
    from harness.store.shipped import LINES, shipped
    from harness.store.table import read_table

    rows = []
    for name, path in shipped().items():
        info = read_table(path).info
        counts = [str(info.cells), str(len(info.study.seeds))]
        rows.append([name, LINES[name], info.study.base.backbone.name, *counts])
    return ["table", "what it is", "backbone", "cells", "seeds"], rows


def _registered(registry: Registry[Any]) -> Iterator[tuple[str, Any, str]]:
    """Name, implementation and summary of every one that can be had; the others' errors."""
    for name, entry in registry.look():
        if isinstance(entry, UserError):
            click.echo(str(entry), err=True)
            continue
        package = registry.distribution(name)
        yield name, entry, entry.summary if package is None else f"{entry.summary} ({package})"
    for sentence in registry.clashes():
        click.echo(sentence, err=True)


_SAMPLED = {
    "random": "each configuration equally likely",
    "sobol": "quasi-random, which covers the space evenly",
    "tpe": "tree-structured Parzen estimator, a Bayesian search",
    "gp": "Gaussian process, a Bayesian search",
    "nsga2": "genetic search for the Pareto front of several objectives",
    "cmaes": "evolution strategy, for spaces of ranges alone",
}
_RANKED = (
    ("gradnorm", "have the largest gradient norm before training"),
    ("snip", "have the largest weight times gradient before training (SNIP)"),
    ("fisher", "have the most Fisher information before training"),
)
_STOPPED = {
    "asha": "the best third goes on after 1, 3, 9, ... epochs",
    "hyperband": "several such ladders; tpe+hyperband is BOHB",
    "median": "those below the median of the others at the same epoch",
}
_SETTINGS: dict[str, Callable[[str], Listed]] = {
    "methods": _kept_settings("methods", _settings_of_method),
    "datasets": _kept_settings("datasets", _settings_of_dataset),
    "fields": _list_fields,
}
_LISTS: dict[str, Callable[[], Listed]] = {
    "methods": _kept("methods", _list_methods),
    "studies": _kept("studies", _list_studies),
    "datasets": _kept("datasets", _list_datasets),
    "backbones": _kept("backbones", _list_backbones),
    "searches": _list_searches,
    "tables": _list_tables,
    "fields": _list_fields,
}
