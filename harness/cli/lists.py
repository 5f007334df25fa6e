"""`harness list`: what there is."""

from __future__ import annotations

from collections.abc import Callable

import click

from harness.cli.options import examples
from harness.cli.show import print_table


@click.command("list", epilog=examples("list studies", "list methods"))
@click.argument("kind", type=click.Choice(["methods", "studies", "datasets", "backbones"]))
def list_(kind: str) -> None:
    """List what there is: methods, studies, datasets or backbones.

    The time of a study is estimated from one trial that is timed for a moment on this machine. It
    is that of one worker for all trials, whether or not some have been run.
    """
    print_table(*_LISTS[kind]())


def _list_methods() -> tuple[list[str], list[list[str]]]:
    from harness.insertion.method import METHODS, get_method

    rows = []
    for name in METHODS.names():
        method = get_method(name)
        options = ", ".join(f"{k}={v}" for k, v in method.Options().model_dump().items())
        rows.append([name, method.summary, ",".join(method.positions) or "-", options or "-"])
    return ["method", "what it is", "positions", "options"], rows


def _list_studies() -> tuple[list[str], list[list[str]]]:
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


def _list_datasets() -> tuple[list[str], list[list[str]]]:
    from harness.data.contract import DATASETS

    return ["dataset", "what it is"], [[n, DATASETS.get(n).summary] for n in DATASETS.names()]


def _list_backbones() -> tuple[list[str], list[list[str]]]:
    from harness.model.backbones import EMBEDDED, PRESETS
    from harness.model.blocks import SUPPORTED

    rows = [[name, "embedded, pre-trained on SYNTHETIC data"] for name in EMBEDDED]
    rows += [[name, words] for name, words in PRESETS.items()]
    return ["backbone", "what it is"], [*rows, ["any timm name", SUPPORTED]]


_LISTS: dict[str, Callable[[], tuple[list[str], list[list[str]]]]] = {
    "methods": _list_methods,
    "studies": _list_studies,
    "datasets": _list_datasets,
    "backbones": _list_backbones,
}
