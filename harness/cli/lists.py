"""`harness list`: what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import examples
from harness.cli.show import print_table
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.registry import Registry

Listed = tuple[list[str], list[list[str]]]
"""The words above a list's columns, and its rows."""


@click.command("list", epilog=examples("list studies", "list methods"))
@click.argument(
    "kind", type=click.Choice(["methods", "studies", "datasets", "backbones", "searches"])
)
def list_(kind: str) -> None:
    """List what there is: methods, studies, datasets, backbones or searches.

    What an installed package brings stands there with its name and version.

    The time of a study is estimated from one trial that is timed for a moment on this machine, once
    for every version, and kept in the user's cache folder. It is that of one worker for all trials,
    whether or not some have been run.
    """
    print_table(*_LISTS[kind]())


def _kept(kind: str, find: Callable[[], Listed]) -> Callable[[], Listed]:
    """The same list without torch, where it was made before and all that is on it ships."""

    def listed() -> Listed:
        from harness.catalogue.answers import kept, machine
        from harness.registry import installed

        if installed(f"harness.{kind}"):
            return find()
        header, rows = kept(f"list-{kind}", find, of=machine() if kind == "studies" else None)
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

    stops = ", ".join(name for name in PRUNERS if name != "none")
    rows = [["grid", "every cell of the study's axes once"]]
    rows += [[name, f"a sampler of Optuna's; --pruner {stops}"] for name in SAMPLERS]
    rows += [[POPULATION, "population-based training"]]
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


_LISTS: dict[str, Callable[[], Listed]] = {
    "methods": _kept("methods", _list_methods),
    "studies": _kept("studies", _list_studies),
    "datasets": _kept("datasets", _list_datasets),
    "backbones": _kept("backbones", _list_backbones),
    "searches": _list_searches,
}
