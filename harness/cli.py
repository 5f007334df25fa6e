"""The command line: the only place that joins studies, searches, engines, the store and reports.

Imports torch, optuna, ray and pandas inside commands only, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.errors import NotSavedError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.store import TrialRecord
    from harness.sweep import Plan
    from harness.trial import Runtime

EXIT_FAILED_TRIALS = 1
EXIT_USER_ERROR = 2
EXIT_NOT_SAVED = 3
EXIT_INTERRUPTED = 130


class _Group(click.Group):
    """Turns a user's mistake into one sentence and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(EXIT_USER_ERROR)
        except BrokenPipeError:
            raise  # the reader, such as `head`, has seen enough; click ends quietly
        except (NotSavedError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(EXIT_NOT_SAVED)


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  harness {line}" for line in lines)


_out = click.option(
    "--out", default="runs", show_default=True, help="Folder of the store and the reports."
)
_device = click.option("--device", help="cpu, cuda or cuda:N.  [default: cuda if there is one]")
_set = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change any field of the trial, e.g. recipe.epochs=5; repeatable.",
)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_examples(
        "sweep --study depth_vs_position",
        "train --method lora --sites mlp1 --depth last:8 --alpha 4",
        "list studies",
    ),
)
@click.version_option(__version__)
def main() -> None:
    """Where, how deep and how strongly to insert PEFT modules in a vision transformer.

    Every command reads and writes one store (--out): a trial that has finished is never run again,
    and any command that was interrupted continues when it is given again.
    """


@main.command(
    epilog=_examples(
        "sweep --study depth_vs_position",
        "sweep --study depth_vs_position --seeds 3 --workers 8",
        "sweep --study position_vs_alpha --dry-run",
        "sweep --study my_study.py --set recipe.lr=0.02 --set options.rank=8",
    )
)
@click.option("--study", "study_name", required=True, help="Name of a study, or a path to one.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run seeds 0..N-1.  [default: study's]")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: 1 per core/GPU]")
@click.option(
    "--select-on",
    type=click.Choice(["val", "test"]),
    help="'test' is the paper's protocol; every output says so.  [default: val]",
)
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@click.option("--dry-run", is_flag=True, help="Print what would run and its cost, then stop.")
@_set
@_device
@_out
def sweep(
    study_name: str,
    seeds: int | None,
    workers: int | None,
    select_on: str | None,
    smoke: bool,
    dry_run: bool,
    settings: tuple[str, ...],
    device: str | None,
    out: str,
) -> None:
    """Run every trial of a study that has not finished yet, then draw its report."""
    from harness.engine import LocalEngine
    from harness.searches import GridSearch
    from harness.store import Store
    from harness.study import load_study
    from harness.sweep import drive, make_plan, write_run

    study = load_study(study_name)
    values = _settings(settings)
    if select_on is not None:
        values["data.select_on"] = select_on
    run_name = study.name + _variant(values) + ("+smoke" if smoke else "")
    study = study.at_smoke_scale() if smoke else study
    if values:
        study = study.derive(base=study.base.with_values(values, source="--set"))
    if seeds is not None:
        study = study.derive(seeds=tuple(range(seeds)))
    runtime = _runtime(device)
    store = Store(Path(out))
    plan = make_plan(study, store=store, run_name=run_name, runtime=runtime)
    workers = min(workers or _default_workers(runtime), max(1, len(plan.to_run)))
    _print_plan(plan, runtime, workers)
    if dry_run:
        return
    write_run(plan, runtime)
    stop = Event()
    engine = LocalEngine(store=store, runtime=runtime, workers=workers)
    failed: list[TrialRecord] = []
    with _stop_on_signal(stop), _progress(plan, study.objective) as advance:

        def ended(record: TrialRecord) -> None:
            if record.status == "FAILED":
                failed.append(record)
            advance(record)

        try:
            drive(
                GridSearch(plan.to_run),
                engine,
                store=store,
                runtime=runtime,
                metric=study.objective,
                stop=stop,
                on_end=ended,
            )
        finally:
            engine.close()
    _write_report(plan.folder)
    if failed:
        last = (failed[0].error or "").strip().splitlines()[-1]
        click.echo(
            f"{len(failed)} trials failed; the first, {failed[0].trial_id}, with: {last} "
            "Run the same command to try them again.",
            err=True,
        )
        sys.exit(EXIT_FAILED_TRIALS)
    if stop.is_set():
        click.echo("Stopped. The same command continues from here.", err=True)
        sys.exit(EXIT_INTERRUPTED)


@main.command(
    epilog=_examples(
        "train --method lora --sites mlp1 --depth last:8 --alpha 4",
        "train --method lora+adaptformer --seed 1",
        "train --method vpt_deep --set options.length=5",
        "train --method lora --set recipe.lr=0.05 --set options.init=released",
    )
)
@click.option("--method", required=True, help="See `harness list methods`; a+b combines two.")
@click.option("--sites", help="Positions, as in q,v or mlp1.  [default: the method's own]")
@click.option(
    "--depth", default="all", show_default=True, help="all, last:N, first:N, block:L, blocks:A-B."
)
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Strength at every site.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--study",
    "study_name",
    default="depth_vs_position",
    show_default=True,
    help="Study whose data, backbone and recipe are used.",
)
@_set
@_device
@_out
def train(
    method: str,
    sites: str | None,
    depth: str,
    alpha: float,
    seed: int,
    study_name: str,
    settings: tuple[str, ...],
    device: str | None,
    out: str,
) -> None:
    """Run one trial and print its scores; a finished one is shown from the store."""
    from harness.spec import TrialRequest
    from harness.store import Store
    from harness.study import load_study
    from harness.trial import resolve, run_trial

    base = load_study(study_name).base
    request = TrialRequest(data=base.data, backbone=base.backbone, recipe=base.recipe)
    chosen = {"method": method, "depth": depth, "alpha": alpha, "seed": seed}
    if sites is not None:
        chosen["positions"] = sites
    request = request.with_values(chosen, source="command line")
    request = request.with_values(_settings(settings), source="--set")
    runtime = _runtime(device)
    record = run_trial(resolve(request, runtime), runtime, Store(Path(out)))
    if record is None:
        raise UserError("Another process is running this very trial; wait for it to end.")
    _print_record(record)
    if record.status == "FAILED":
        sys.exit(EXIT_FAILED_TRIALS)


@main.command("list", epilog=_examples("list studies", "list methods"))
@click.argument("kind", type=click.Choice(["methods", "studies", "datasets", "backbones"]))
def list_(kind: str) -> None:
    """List what there is: methods, studies, datasets or backbones."""
    _print_table(*_LISTS[kind]())


@main.command(epilog=_examples("report depth_vs_position", "report runs/studies/depth_vs_position"))
@click.argument("run")
@_out
def report(run: str, out: str) -> None:
    """Draw a run's figures and tables again, without training. RUN is its name or folder."""
    folder = Path(run) if Path(run).is_dir() else Path(out) / "studies" / run
    if not folder.is_dir():
        from harness.errors import unknown

        known = [path.name for path in (Path(out) / "studies").glob("*") if path.is_dir()]
        raise unknown("run", run, known)
    _write_report(folder)


@main.command(
    epilog=_examples(
        "pretrain --file vit_pico.safetensors", "pretrain --file x.safetensors --seed 1"
    )
)
@click.option("--file", "path", required=True, type=click.Path(dir_okay=False), help="To write.")
@click.option("--seed", type=int, default=0, show_default=True)
def pretrain(path: str, seed: int) -> None:
    """Train the embedded backbone vit_pico on the SYNTHETIC source domain and save its weights."""
    from harness.pretrain import pretrain_pico

    accuracy = pretrain_pico(Path(path), seed=seed, log=click.echo)
    click.echo(f"Saved {path}; accuracy on unseen source images {100 * accuracy:.1f} %.")


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`a.b=v` pairs; v is read as JSON where it is JSON, else as a word."""
    values: dict[str, Any] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write FIELD=VALUE, as in recipe.lr=0.02.")
        try:
            values[field] = json.loads(text)
        except json.JSONDecodeError:
            values[field] = text
    return values


def _variant(values: dict[str, Any]) -> str:
    """Part of the run's folder name that tells changed settings from the study's own."""
    words = [f"{field}={value}" for field, value in sorted(values.items())]
    return "".join(f"+{word}" for word in words).replace("/", "_").replace(" ", "")


def _runtime(device: str | None) -> Runtime:
    import torch

    from harness.trial import Runtime, default_device

    name = device or default_device()
    try:
        if torch.device(name).type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"Device {name!r} is not there: this machine has no CUDA GPU.")
    except RuntimeError as error:
        raise UserError(f"Unknown device {name!r}: write cpu, cuda or cuda:N.") from error
    return Runtime(device=name)


def _default_workers(runtime: Runtime) -> int:
    return 1 if runtime.device.startswith("cuda") else len(os.sched_getaffinity(0))


@contextmanager
def _stop_on_signal(stop: Event) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: finish what runs. Second: end now; the store stays whole."""

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("Finishing the running trials; press Ctrl-C again to end now.", err=True)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Ended. The same command continues from here.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(plan: Plan, metric: str) -> Iterator[Callable[[TrialRecord], None]]:
    """A bar with ETA and the best score so far; plain lines where there is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
        console=console,
    )
    task = bar.add_task(plan.study.name, total=len(plan.to_run), best="")
    scores = [record.objective(metric) for record in plan.done if record.status == "COMPLETE"]
    best, ended = max(scores, default=0.0), 0

    def advance(record: TrialRecord) -> None:
        nonlocal best, ended
        ended += 1
        if record.status == "COMPLETE":
            best = max(best, record.objective(metric))
        text = f"best {plan.study.base.data.select_on} {100 * best:.1f} %"
        bar.update(task, advance=1, best=text)
        if not console.is_terminal and (ended % 6 == 0 or ended == len(plan.to_run)):
            remaining = bar.tasks[0].time_remaining
            eta = "" if remaining is None else f", ETA {_duration(remaining)}"
            click.echo(f"{ended}/{len(plan.to_run)} trials, {text}{eta}", err=True)

    if console.is_terminal:
        with bar:
            yield advance
    else:
        bar.start_task(task)
        yield advance


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _print_plan(plan: Plan, runtime: Runtime, workers: int) -> None:
    study = plan.study
    click.echo(f"{study.name}: {study.question}")
    to_run = len(plan.to_run) - plan.running - plan.failed
    click.echo(
        f"Trials: {len(plan.done)} done, {plan.running} running, {plan.failed} failed (will be "
        f"tried again), {to_run} to run."
    )
    if study.base.data.select_on == "test":
        click.echo("SELECTED ON TEST: the paper's protocol, which flatters every choice.")
    device_s = plan.estimated_device_s(runtime) if plan.to_run else 0.0
    if device_s is None:
        click.echo("Estimated cost: unknown, because a trial could not be started.")
    elif plan.to_run:
        wall = f"{_duration(device_s / workers)} with {workers} workers"
        click.echo(f"Estimated cost: {_duration(device_s)} of {runtime.device}, {wall}.")


def _write_report(folder: Path) -> None:
    from reports.page import write_report

    for path in write_report(folder):
        click.echo(f"Wrote {path}")


def _print_record(record: TrialRecord) -> None:
    spec = record.spec
    sites = ", ".join(spec.placement.root) or "none"
    if len(spec.placement) > 6:
        sites = f"{len(spec.placement)} sites"
    click.echo(f"{record.trial_id}  {spec.method}  {sites}  seed {spec.seed}  {record.status}")
    if record.error:
        click.echo(record.error, err=True)
    if record.select is None or record.test is None:
        return
    label = "validation" if spec.data.select_on == "val" else "test (selected on)"
    rows = []
    for name, scores in ((label, record.select), ("test", record.test)):
        values = [*scores.groups.values(), scores.class_mean, scores.group_mean, scores.micro]
        rows.append([name, *(f"{100 * value:.1f}" for value in values)])
    header = ["accuracy %", *record.test.groups, "class mean", "group mean", "micro"]
    _print_table(header, rows)
    cost = record.cost
    click.echo(
        f"{record.trainable_params} PEFT + {record.head_params} head parameters; "
        f"{cost.device_s:.1f} device s, {cost.flops / 1e12:.2f} TFLOP, {record.epochs_run} epochs."
    )


def _list_methods() -> tuple[list[str], list[list[str]]]:
    from harness.insertion import get_method
    from harness.registry import METHODS

    rows = []
    for name in METHODS.names():
        method = get_method(name)
        options = ", ".join(f"{k}={v}" for k, v in method.Options().model_dump().items())
        rows.append([name, method.summary, ",".join(method.positions) or "-", options or "-"])
    return ["method", "what it is", "positions", "options"], rows


def _list_studies() -> tuple[list[str], list[list[str]]]:
    from harness.study import load_study, study_names

    rows = []
    for name in study_names():
        study = load_study(name)
        trials = len(study.cells()) * len(study.seeds)
        rows.append([name, study.paper, str(trials), study.question])
    return ["study", "paper", "trials", "question"], rows


def _list_datasets() -> tuple[list[str], list[list[str]]]:
    from harness.registry import DATASETS

    return ["dataset", "what it is"], [[n, DATASETS.get(n).summary] for n in DATASETS.names()]


def _list_backbones() -> tuple[list[str], list[list[str]]]:
    from harness.vit import EMBEDDED, SUPPORTED

    rows = [[name, "embedded, pre-trained on SYNTHETIC data"] for name in EMBEDDED]
    return ["backbone", "what it is"], [*rows, ["any timm name", SUPPORTED]]


_LISTS: dict[str, Callable[[], tuple[list[str], list[list[str]]]]] = {
    "methods": _list_methods,
    "studies": _list_studies,
    "datasets": _list_datasets,
    "backbones": _list_backbones,
}


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
