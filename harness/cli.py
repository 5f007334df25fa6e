"""The command line: the only place that joins studies, searches, engines, the store and reports.

Imports torch, optuna, ray and pandas inside commands only, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.errors import NotSavedError, UserError, saving, unknown

if TYPE_CHECKING:
    from harness.arms import Run
    from harness.batch import Batch
    from harness.compare_searches import Wanted as Contestants
    from harness.data_check import Checked
    from harness.engine import Engine
    from harness.files import Counts, FileDataset
    from harness.spec import BackboneSpec, TrialRequest
    from harness.store import Store, TrialRecord
    from harness.study import Metric, Study
    from harness.sweep import Plan
    from harness.trial import Runtime

EXIT_PROBLEMS = 1
EXIT_USER_ERROR = 2
EXIT_NOT_SAVED = 3
MOST_FAILURES = 5
"""Failed trials that `status` names."""
TABLE = Path(__file__).parent / "assets" / "joint_space.parquet"
"""The table that `compare --replay` takes if none is named."""


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
_data_root = click.option(
    "--data-root",
    type=click.Path(),
    metavar="FOLDER",
    help="Where the files of a dataset lie; see `harness data check NAME`.",
)
_on_bad_image = click.option(
    "--on-bad-image",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="An image that cannot be read: stop, or leave it out and say so.",
)
_workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Trials at once.  [default: 1 per core/GPU]"
)
_set = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change any field of the trial, e.g. recipe.epochs=5; repeatable.",
)
_weights = click.option(
    "--weights",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Local weights of the backbone: safetensors, or torch's; timm, MAE, DINO or CLIP keys.",
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
        "sweep --study depth_vs_position --search tpe --budget 24 --repeats 3",
        "sweep --study depth_vs_position --search tpe --pruner hyperband --budget 12runs",
        "sweep --study depth_vs_position --engine ray --address auto --gpus-per-trial 0.25",
        "sweep --study position_vs_alpha --search pbt --budget 12",
        "sweep --study position_vs_alpha --dry-run",
        "sweep --study depth_vs_position --set backbone.name=vit_tiny_local --weights vit.pth",
        "sweep --study my_study.py --set recipe.lr=0.02 --set options.rank=8",
    )
)
@click.option("--study", "study_name", required=True, help="Name of a study, or a path to one.")
@click.option(
    "--search",
    default="grid",
    show_default=True,
    help="How to choose what to run: grid, random, sobol, tpe, gp, cmaes, pbt (population-based "
    "training); or a method that learns strengths, such as metapeft.",
)
@click.option("--budget", help="24, 240epochs, 600s or 12runs.  [default: 24; a grid: all]")
@click.option("--repeats", type=click.IntRange(min=1), help="Searches to run.  [default: 1]")
@click.option(
    "--pruner",
    type=click.Choice(["none", "asha", "hyperband", "median"]),
    help="Stop bad trials early; tpe with hyperband is BOHB.  [default: none]",
)
@click.option(
    "--on-repeat",
    type=click.Choice(["cached", "next-seed"]),
    help="A configuration proposed again: known answer, or its next seed.  [default: cached]",
)
@click.option("--warm-start", metavar="RUN", help="Let the search know another run's results.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run seeds 0..N-1.  [default: study's]")
@_workers_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or Ray workers on one machine or many.",
)
@click.option("--address", help="With ray: of a running cluster, or auto.  [default: start one]")
@click.option(
    "--gpus-per-trial",
    type=click.FloatRange(min=0, min_open=True),
    help="With ray: below 1, trials share a GPU; 2 or more train one trial together.  [default: 1]",
)
@click.option(
    "--max-retries",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Of a trial whose worker or machine is lost.",
)
@click.option(
    "--keep",
    type=click.Choice(["none", "best", "all"]),
    default="none",
    show_default=True,
    help="Whose trained tensors to keep.",
)
@click.option(
    "--select-on",
    type=click.Choice(["val", "test"]),
    help="'test' is the paper's protocol; every output says so.  [default: val]",
)
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@click.option("--dry-run", is_flag=True, help="Print what would run and its cost, then stop.")
@_set
@_weights
@_data_root
@_on_bad_image
@_device
@_out
def sweep(
    study_name: str,
    search: str,
    budget: str | None,
    repeats: int | None,
    pruner: str | None,
    on_repeat: str | None,
    warm_start: str | None,
    seeds: int | None,
    workers: int | None,
    engine: str,
    address: str | None,
    gpus_per_trial: float | None,
    max_retries: int,
    keep: str,
    select_on: str | None,
    smoke: bool,
    dry_run: bool,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Run every trial of a study that has not finished yet, then draw its report.

    With --search, run those that the search asks for until its budget is spent. A study that names
    searches runs each of them instead, and compares them.
    """
    from dataclasses import replace

    from harness.batch import Batch
    from harness.compare_searches import BUDGET, REPEATS_LIVE, SMOKE_BUDGET
    from harness.compare_searches import Wanted as Contestants
    from harness.named_searches import POPULATION
    from harness.runs import Command, known_run, read_run, write_command, write_run
    from harness.search_plan import Wanted, plan_searches
    from harness.searches import GridSearch
    from harness.store import Store, driving
    from harness.sweep import make_plan
    from harness.trial import provenance

    settings, file = _weights_file(settings, weights)
    study, run_name = _loaded(study_name, settings, smoke, seeds, select_on)
    where = (out, data_root, on_bad_image)
    runtime = _runtime(device, where, study.base.backbone, file)
    contest = None
    if study.searches is not None and search == "grid":
        contest = Contestants(
            searches=study.searches,
            budget=budget or (SMOKE_BUDGET if smoke else BUDGET),
            repeats=repeats,
            workers=_local_workers(workers, runtime),
        )
    runtime = replace(
        runtime,
        keep_weights=keep != "none",
        keep_features=study.needs_features,
        keep_checkpoints=POPULATION in (search, *(contest.names([]) if contest else ())),
    )
    store = Store(Path(out))
    batch = Batch(
        store=store,
        base=study.base,
        start_engine=_engine(engine, store, runtime, workers, gpus_per_trial, address),
        runtime=runtime,
        max_retries=max_retries,
        keep=keep,  # type: ignore[arg-type]
    )
    of_a_search = {"pruner": pruner, "on-repeat": on_repeat, "warm-start": warm_start}
    given = [flag for flag, value in of_a_search.items() if value is not None]
    if contest is not None:
        if given:
            raise UserError(f"--{given[0]} is for one search; {study.name} compares several.")
        click.echo(f"{study.name}: {study.question}")
        times = contest.repeats or REPEATS_LIVE
        click.echo(f"Searches: {contest.searches}, each to a budget of {contest.budget}, {times}×.")
        if not dry_run:
            _compare_searches(contest, study, run_name, batch)
        return
    if search != "grid":
        if not study.trains:
            raise UserError(f"--search: study {study.name} trains nothing, so nothing is sought.")
        wanted = Wanted(
            name=search,
            budget=budget,
            repeats=repeats or 1,
            pruner=pruner,  # type: ignore[arg-type]
            on_repeat=on_repeat,  # type: ignore[arg-type]
            warm_start=None if warm_start is None else known_run(warm_start, store.root),
        )
        words = [search] if pruner in (None, "none") else [search, str(pruner)]
        if len(words) > 1 and (gpus_per_trial or 1) > 1:
            raise UserError("--pruner: trials on several GPUs each are not stopped early.")
        folder = store.root / "studies" / "+".join([run_name, *words])
        click.echo(f"{study.name}: {study.question}")
        planned = plan_searches(study, runtime, folder, wanted)
        click.echo(planned.words)
        if dry_run:
            return
        with driving(folder), batch:
            write_run(folder, study, [], provenance(runtime.device))
            write_command(folder, Command(_typed(), planned.words))
            for number, start in enumerate(planned.starts):
                title = study.name if not repeats else f"{study.name} {number + 1}/{repeats}"
                batch.run(start(), count=planned.count, title=title, objective=study.objective)
                if batch.is_incomplete:
                    break
            if runtime.keep_checkpoints and not batch.is_incomplete:
                for asked in read_run(folder).asked:
                    store.drop_checkpoint(asked.trial_id)
    else:
        given += ["repeats"] if repeats is not None else []
        if given:
            raise UserError(f"--{given[0]} is for a search; the grid runs every cell once.")
        most = None if budget is None else _trials_in(budget, study)
        plan = make_plan(study, store=store, run_name=run_name, runtime=runtime, most=most)
        folder = plan.folder
        if not study.trains:
            _count(plan, dry_run, provenance(runtime.device))
            return
        _print_plan(plan, runtime, _local_workers(workers, runtime))
        if dry_run:
            return
        with driving(folder), batch:
            write_run(folder, study, plan.cells, provenance(runtime.device))
            limit = "" if budget is None else f", {budget} at most"
            write_command(folder, Command(_typed(), f"Every cell once for every seed{limit}."))
            batch.run(
                GridSearch(plan.to_run),
                count=len(plan.to_run),
                title=study.name,
                objective=study.objective,
                done=plan.done,
            )
    _write_report(folder)
    batch.exit_if_incomplete()


def _count(plan: Plan, dry_run: bool, environment: dict[str, str]) -> None:
    """Count the trainable parameters of a study that trains nothing, and write its report."""
    from harness.runs import write_counts, write_run
    from harness.store import driving
    from harness.trial import count_params

    click.echo(f"{plan.study.name}: {plan.study.question}")
    click.echo(f"Trials: none; the parameters of {len(plan.cells)} cells are counted.")
    if dry_run:
        return
    with driving(plan.folder):
        write_run(plan.folder, plan.study, plan.cells, environment)
        write_counts(plan.folder, {spec.trial_id: count_params(spec) for _, spec in plan.cells})
    _write_report(plan.folder)


def _trials_in(budget: str, study: Study) -> int:
    """Trials of the grid that a budget pays for, counted from the first cell."""
    from harness.searches import Budget

    limit = Budget.parse(budget)
    if limit.unit not in ("trials", "epochs"):
        raise UserError(f"--budget {budget}: that of a grid is in trials or epochs, as in 24.")
    return int(limit.amount / (study.base.recipe.epochs if limit.unit == "epochs" else 1))


def _engine(
    kind: str,
    store: Store,
    runtime: Runtime,
    workers: int | None,
    gpus_per_trial: float | None,
    address: str | None,
) -> Callable[[bool], Engine]:
    """How to start the engine for trials that report or not."""
    from harness.engine import LocalEngine

    if kind == "local":
        for flag, value in (("gpus-per-trial", gpus_per_trial), ("address", address)):
            if value is not None:
                raise UserError(f"--{flag} is for --engine ray; use --workers to share GPUs.")

        def local(watch: bool) -> Engine:
            count = _local_workers(workers, runtime)
            return LocalEngine(store=store, runtime=runtime, workers=count, watch=watch)

        return local
    if gpus_per_trial is not None and gpus_per_trial > 1 and gpus_per_trial % 1:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: above 1 it must be a whole number.")

    def on_ray(watch: bool) -> Engine:
        from harness.ray_engine import RayEngine

        return RayEngine(
            store=store,
            runtime=runtime,
            workers=workers,
            gpus_per_trial=gpus_per_trial or 1.0,
            address=address,
            watch=watch,
        )

    return on_ray


@main.command(
    epilog=_examples(
        "train --method lora --sites mlp1 --depth last:8 --alpha 4",
        "train --method lora+adaptformer --seeds 5",
        "train --method metapeft --base lora --seeds 5 --controls",
        "train --method lora --sites placement.json",
        "train --method lora --set recipe.lr=0.05 --set options.init=released",
    )
)
@click.option("--method", required=True, help="See `harness list methods`; a+b combines two.")
@click.option("--base", help="For metapeft: the method whose sites it modulates.  [default: lora]")
@click.option(
    "--sites", help="Positions, as in q,v, or a file from `derive`.  [default: the method's own]"
)
@click.option(
    "--depth", default="all", show_default=True, help="all, last:N, first:N, block:L, blocks:A-B."
)
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Strength at every site.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), help="Run seeds 0..N-1 instead of --seed.")
@click.option(
    "--controls",
    is_flag=True,
    help="Also train what a learned placement must be judged against, and compare.",
)
@_workers_option
@click.option(
    "--study",
    "study_name",
    default="depth_vs_position",
    show_default=True,
    help="Study whose data, backbone and recipe are used.",
)
@_set
@_weights
@_data_root
@_on_bad_image
@_device
@_out
def train(
    method: str,
    base: str | None,
    sites: str | None,
    depth: str,
    alpha: float,
    seed: int,
    seeds: int | None,
    controls: bool,
    workers: int | None,
    study_name: str,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Train one configuration and print its scores; finished trials are shown from the store.

    The trained tensors are kept (see `export`), and what the method learned is drawn.
    """
    from dataclasses import replace

    from harness.placements import read_placement
    from harness.spec import TrialRequest
    from harness.store import Store, driving
    from harness.study import load_study
    from harness.trial import provenance, resolve

    study = load_study(study_name)
    request = TrialRequest(
        data=study.base.data, backbone=study.base.backbone, recipe=study.base.recipe
    )
    chosen: dict[str, Any] = {}
    if depth != "all":
        chosen["depth"] = depth
    if alpha != 1:
        chosen["alpha"] = alpha
    if sites is not None and sites.endswith(".json"):
        chosen["placement"] = read_placement(Path(sites)).placement.root
    elif sites is not None:
        chosen["positions"] = sites
    named = {"method": method, "seed": seed, **({"options.base": base} if base else {})}
    request = request.with_values({**named, **chosen}, source="command line")
    settings, file = _weights_file(settings, weights)
    values = _settings(settings)
    request = request.with_values(values, source="--set")
    where = (out, data_root, on_bad_image)
    runtime = replace(_runtime(device, where, request.backbone, file), keep_weights=True)
    store = Store(Path(out))
    numbers = (seed,) if seeds is None else tuple(range(seeds))
    requests = [request.model_copy(update={"seed": number}) for number in numbers]
    ids = [resolve(each, runtime).trial_id for each in requests]

    run = _runner(store, runtime, workers, request, title=method, objective=study.objective)
    if controls:
        from harness.controls import Controls
        from harness.runs import Command, write_command, write_comparison

        everything = Controls(
            request, seeds=numbers, study=study, run=run, store=store, runtime=runtime
        )
        words = "_".join([method, base] if base else [method])
        if "placement" in chosen:
            chosen["placement"] = Path(str(sites)).stem
        run_name = f"{study.name}+{words}" + _variant({**chosen, **values})
        folder = store.root / "studies" / run_name
        with driving(folder):
            compared = everything.compare()
            write_comparison(folder, compared, provenance(runtime.device))
            write_command(folder, Command(_typed(), "Every arm once for every seed."))
        _write_report(folder)
        _print_markdown(folder / "report" / "report.md")
        return
    records = run(requests)
    _print_records(records)
    _write_gamma([store.trials / trial_id for trial_id in ids])


def _runner(
    store: Store,
    runtime: Runtime,
    workers: int | None,
    base: TrialRequest,
    *,
    title: str,
    objective: Metric,
) -> Run:
    """What runs requests that the store has no results of, and ends the program if one fails."""
    from harness.batch import Batch
    from harness.searches import GridSearch
    from harness.trial import resolve

    def run(wanted: Sequence[TrialRequest]) -> list[TrialRecord]:
        specs = {spec.trial_id: spec for spec in (resolve(each, runtime) for each in wanted)}
        left = [spec for key, spec in specs.items() if store.state(key) != "done"]
        batch = Batch(
            store=store,
            runtime=runtime,
            base=base,
            start_engine=_engine("local", store, runtime, workers, None, None),
        )
        with batch:
            batch.run(GridSearch(left), count=len(left), title=title, objective=objective)
        batch.exit_if_incomplete()
        records = [store.record(resolve(each, runtime).trial_id) for each in wanted]
        return [record for record in records if record is not None]

    return run


@main.command(
    epilog=_examples(
        "derive 1d0932a60454a8f7 --rule topk --value 24 --file placement.json",
        "derive depth_vs_position+metapeft_lora --rule as_is --file mean.json",
        "train --method lora --sites placement.json",
    )
)
@click.argument("trials", nargs=-1, required=True)
@click.option(
    "--rule",
    type=click.Choice(["as_is", "threshold", "topk"]),
    required=True,
    help="Keep every site, those of at least --value, or the --value strongest.",
)
@click.option("--value", type=float, help="[default: 0.5 for threshold, half the sites for topk]")
@click.option("--file", "path", required=True, type=click.Path(dir_okay=False), help="To write.")
@_out
def derive(trials: tuple[str, ...], rule: str, value: float | None, path: str, out: str) -> None:
    """Turn learned strengths into a fixed placement for any method.

    TRIALS are ids, or a run made with `train --controls`; the strengths of several are averaged.
    """
    from harness.insertion import get_method
    from harness.placements import PlacementFile
    from harness.placements import derive as derived
    from harness.store import Store, write_atomically

    store = Store(Path(out))
    records = [_trial(store, each) for name in trials for each in _members(store, name)]
    without = [record.trial_id for record in records if record.learned is None]
    if without:
        raise UserError(f"Trial {without[0]} learned no strengths, so there is nothing to derive.")
    learned = [record.learned for record in records if record.learned is not None]
    spec = records[0].spec
    method = get_method(spec.method)
    base, options = method.unwrapped(method.parse_options(spec.options))
    content = PlacementFile(
        placement=derived(learned, rule, value),  # type: ignore[arg-type]
        method=base,
        options=options,
        backbone=spec.backbone,
        rule=rule,  # type: ignore[arg-type]
        value=value,
        trials=tuple(record.trial_id for record in records),
    )
    write_atomically(Path(path), content.model_dump_json(indent=1))
    strengths = list(content.placement.root.values())
    click.echo(
        f"Wrote {path}: {len(strengths)} of {len(learned[0])} sites, strengths "
        f"{min(strengths):.3g} to {max(strengths):.3g}.\n"
        f"Next: harness train --method {base} --sites {path}"
    )


@main.command(
    epilog=_examples(
        "export 1d0932a60454a8f7 --weights adapter/",
        "export 1d0932a60454a8f7 --peft adapter/",
        "export placement.json --peft config/",
        "export depth_vs_position --csv trials.csv --parquet trials.parquet",
        "export depth_vs_position+tpe --optuna sqlite:///tpe.db",
    )
)
@click.argument("source")
@click.option(
    "--weights", type=click.Path(file_okay=False), help="Folder for safetensors and JSON."
)
@click.option(
    "--peft", type=click.Path(file_okay=False), help="Folder for a Hugging Face peft adapter."
)
@click.option("--csv", type=click.Path(dir_okay=False), help="Of a run: a row per trial.")
@click.option("--parquet", type=click.Path(dir_okay=False), help="Of a run: the same, typed.")
@click.option("--optuna", metavar="URL", help="Of a run: database for optuna-dashboard.")
@click.option(
    "--tensorboard", type=click.Path(file_okay=False), help="Of a run: folder for its curves."
)
@_out
def export(
    source: str,
    weights: str | None,
    peft: str | None,
    csv: str | None,
    parquet: str | None,
    optuna: str | None,
    tensorboard: str | None,
    out: str,
) -> None:
    """Write trained modules, a placement to be trained, or a run's trials for other tools.

    SOURCE is a trial that `harness train` ran, a file from `harness derive`, or a run.
    """
    from harness.runs import find_run

    store_root = Path(out)
    of_a_trial = {"weights": weights, "peft": peft}
    of_a_run = {"csv": csv, "parquet": parquet, "optuna": optuna, "tensorboard": tensorboard}
    is_run = find_run(source, store_root) is not None
    wrong = of_a_trial if is_run else of_a_run
    flags = [flag for flag, value in wrong.items() if value is not None]
    if flags:
        kind = "run" if is_run else "trial or placement"
        raise UserError(f"--{flags[0]} is not for a {kind} such as {source!r}.")
    given = of_a_run if is_run else of_a_trial
    if not any(given.values()):
        raise UserError(f"Nothing to export: give {' or '.join(f'--{flag}' for flag in given)}.")
    for path in (_export_run if is_run else _export_trial)(source, store_root, given):
        click.echo(f"Wrote {path}")


def _export_trial(source: str, root: Path, wanted: dict[str, str | None]) -> list[Path]:
    from harness.export import export_lora_config, export_peft, export_weights
    from harness.placements import read_placement
    from harness.store import Store

    weights, peft = wanted["weights"], wanted["peft"]
    if source.endswith(".json"):
        if peft is None or weights is not None:
            raise UserError("A placement file has no weights: export it with --peft alone.")
        return export_lora_config(read_placement(Path(source)), Path(peft))
    store = Store(root)
    record = _trial(store, source)
    written = []
    if weights is not None:
        written += export_weights(record, store, Path(weights))
    if peft is not None:
        written += export_peft(record, store, Path(peft))
    return written


def _export_run(source: str, root: Path, wanted: dict[str, str | None]) -> list[Path]:
    from harness.export_run import export_optuna, export_tensorboard
    from harness.runs import known_run, refuse_replayed
    from harness.store import Store
    from reports.frames import load_run

    folder = known_run(source, root)
    refuse_replayed(folder)
    written = []
    trials = load_run(folder).trials
    csv, parquet = wanted["csv"], wanted["parquet"]
    if csv is not None:
        with saving(Path(csv)):
            trials.to_csv(csv, index=False)
        written.append(Path(csv))
    if parquet is not None:
        with saving(Path(parquet)):
            trials.to_parquet(parquet, index=False)
        written.append(Path(parquet))
    if wanted["optuna"] is not None:
        click.echo(f"Wrote {export_optuna(folder, Store(root), wanted['optuna'])} trials.")
    if wanted["tensorboard"] is not None:
        written.append(export_tensorboard(folder, Store(root), Path(wanted["tensorboard"])))
    return written


@main.command(
    epilog=_examples(
        "tabulate joint_space --file joint_space.parquet",
        "tabulate joint_space joint_space+metapeft --file joint_space.parquet",
    )
)
@click.argument("runs", nargs=-1, required=True)
@click.option("--file", "path", required=True, type=click.Path(dir_okay=False), help="To write.")
@_out
def tabulate(runs: tuple[str, ...], path: str, out: str) -> None:
    """Put a finished sweep into one table, for searches to be replayed on.

    RUNS are an exhaustive sweep and, if wanted, other finished runs of the same study.
    """
    from harness.runs import known_run
    from harness.table import tabulate as put

    info = put([known_run(run, Path(out)) for run in runs], Path(path))
    click.echo(
        f"Wrote {path}: {info.cells} cells, {sum(info.devices.values())} trials, seeds "
        f"{', '.join(map(str, info.study.seeds))}; one full run takes "
        f"{info.reference.device_s:.1f} device s."
    )


@main.command(
    epilog=_examples(
        "compare --methods all --seeds 3",
        "compare --methods lora,bitfit,vpt_deep --seeds 5",
        "compare --search all --replay",
        "compare --search tpe,gp --replay my_table.parquet --repeats 100",
        "compare --search random,tpe --study depth_vs_position --budget 600s --repeats 5",
        "compare --search random,metapeft --seeds 3 --charge outer_lr",
    )
)
@click.option("--methods", help="Methods with commas between; or all. Each tunes its own rate.")
@click.option(
    "--search", help="Searches with commas between, as in random,tpe+hyperband,metapeft; or all."
)
@click.option(
    "--study",
    "study_name",
    help="Name of a study, or a path to one.  [default: depth_vs_position for methods, "
    "search_comparison for searches]",
)
@click.option(
    "--replay",
    type=click.Path(dir_okay=False),
    is_flag=False,
    flag_value=str(TABLE),
    metavar="[TABLE]",
    help="Take results from a table of `harness tabulate`, and train nothing; without TABLE, from "
    "that of joint_space on the embedded benchmark.",
)
@click.option(
    "--budget",
    help="Of each search: 24 (trials, counted by their epochs), 240epochs, 600s or 12runs.  "
    "[default: 24]",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), help="Of each search.  [default: 3; 20 in a replay]"
)
@click.option(
    "--seeds", type=click.IntRange(min=1), help="Seeds to train with, in turn.  [default: study's]"
)
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="K",
    help="Train the K best of each again on unseen seeds.  [default: 0; 3 in a replay]",
)
@click.option(
    "--charge",
    multiple=True,
    metavar="RUN",
    help="Run that tuned the methods that learn strengths; repeatable.",
)
@click.option(
    "--controls",
    metavar="RUN",
    help="Run of `harness train --controls`, to be shown beside the searches.",
)
@click.option("--smoke", is_flag=True, help="The study's small version, to see that it works.")
@_workers_option
@_set
@_weights
@_data_root
@_on_bad_image
@_device
@_out
def compare(
    methods: str | None,
    search: str | None,
    study_name: str | None,
    replay: str | None,
    budget: str | None,
    repeats: int | None,
    seeds: int | None,
    confirm: int | None,
    charge: tuple[str, ...],
    controls: str | None,
    smoke: bool,
    workers: int | None,
    settings: tuple[str, ...],
    weights: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Judge methods or searches against each other at equal cost, and say what the figures show.

    Methods: every one at its own sites, additive ones also at all their sites and with MetaPEFT;
    each chooses its learning rate from as many. Searches: live, or with --replay from a table of
    every trial, in the order in which --workers simulated workers would have ended them. Choices
    are made on validation, and shown on test.
    """
    from harness.compare_searches import BUDGET, SMOKE_BUDGET, Wanted, replay_searches
    from harness.runs import Command, known_run, write_command
    from harness.store import Store

    store = Store(Path(out))
    settings, file = _weights_file(settings, weights)
    where = (out, data_root, on_bad_image)
    if (methods is None) == (search is None):
        raise UserError("Give either --methods or --search, as in `harness compare --methods all`.")
    if methods is not None:
        flags = {"replay": replay, "budget": budget, "repeats": repeats, "confirm": confirm}
        flags |= {"charge": " ".join(charge) or None, "controls": controls}
        for flag, value in flags.items():
            if value is not None:
                raise UserError(f"--{flag} is for --search; methods all spend the same.")
        study, run_name = _loaded(study_name or "depth_vs_position", settings, smoke)
        runtime = _runtime(device, where, study.base.backbone, file)
        _compare_methods(methods, study, run_name, seeds or 3, store, runtime, workers)
        return
    assert search is not None
    wanted = Wanted(
        searches=search,
        budget=budget or (SMOKE_BUDGET if smoke else BUDGET),
        repeats=repeats,
        seeds=seeds,
        workers=workers or 1,
        confirm=confirm,
        tuning=tuple(known_run(run, store.root) for run in charge),
        controls=None if controls is None else known_run(controls, store.root),
    )
    if replay is not None:
        if settings or smoke or device or data_root:
            raise UserError(
                "--set, --weights, --smoke, --device and --data-root are for live trials; a table "
                "has its own."
            )
        from harness.study import load_study

        asked = None if study_name is None else load_study(study_name).name
        studies = store.root / "studies"
        folder = replay_searches(wanted, Path(replay), asked, studies, click.echo)
        write_command(folder, Command(_typed(), f"Each search to a budget of {wanted.budget}."))
        _write_report(folder)
        return
    from dataclasses import replace

    from harness.batch import Batch
    from harness.named_searches import POPULATION

    study, run_name = _loaded(study_name or "search_comparison", settings, smoke, seeds)
    runtime = _runtime(device, where, study.base.backbone, file)
    runtime = replace(runtime, keep_checkpoints=POPULATION in wanted.names([]))
    batch = Batch(
        store=store,
        base=study.base,
        start_engine=_engine("local", store, runtime, workers, None, None),
        runtime=runtime,
    )
    count = _local_workers(workers, runtime)
    _compare_searches(replace(wanted, workers=count), study, run_name, batch)


def _compare_searches(wanted: Contestants, study: Study, run_name: str, batch: Batch) -> None:
    """Searches against each other, live, and their report."""
    from harness.compare_searches import run_searches
    from harness.runs import Command, write_command

    folder = batch.store.root / "studies" / f"{run_name}+searches"
    run_searches(wanted, study, folder, batch=batch, say=click.echo)
    if not batch.is_incomplete:
        write_command(folder, Command(_typed(), f"Each search to a budget of {wanted.budget}."))
        _write_report(folder)
    batch.exit_if_incomplete()


def _compare_methods(
    names: str,
    study: Study,
    run_name: str,
    seeds: int,
    store: Store,
    runtime: Runtime,
    workers: int | None,
) -> None:
    from harness.compare_methods import RATES, compare_methods, compared_methods
    from harness.runs import Command, write_command, write_comparison
    from harness.store import driving
    from harness.trial import provenance

    chosen = compared_methods(names)
    words = "methods" if names == "all" else f"methods={'_'.join(chosen)}"
    folder = store.root / "studies" / f"{run_name}+{words}"
    run = _runner(store, runtime, workers, study.base, title="methods", objective=study.objective)
    with driving(folder):
        compared = compare_methods(
            chosen,
            study=study,
            seeds=tuple(range(seeds)),
            run=run,
            store=store,
            runtime=runtime,
        )
        write_comparison(folder, compared, provenance(runtime.device))
        plan = f"Every arm at {len(RATES)} learning rates for every seed."
        write_command(folder, Command(_typed(), plan))
    _write_report(folder)
    _print_markdown(folder / "report" / "report.md")


@main.command(epilog=_examples("status depth_vs_position", "status depth_vs_position+tpe"))
@click.argument("run")
@_out
def status(run: str, out: str) -> None:
    """Show how far a run is, from any terminal: progress, best so far, failures, time left, cost.

    Reads the store only, so it may be asked while the run goes on. RUN is its name or folder.
    """
    from harness.batch import duration
    from harness.runs import known_run
    from harness.status import look
    from harness.study import in_words

    seen = look(known_run(run, Path(out)))
    click.echo(f"{seen.name}: {seen.question}")
    known = f"of {seen.asked} " if seen.is_grid else ""
    counts = ", ".join(f"{count} {word}" for word, count in seen.counts.items() if count)
    click.echo(f"Trials: {counts or 'none yet'} {known}".rstrip() + ".")
    driver = seen.driver or "none; the same command continues the run"
    click.echo(f"Driver: {driver}.")
    if seen.best is not None:
        words = ", ".join(f"{f} = {in_words(value)}" for f, value in seen.best.cell.items())
        score = f"{100 * seen.best.score:.1f} % {seen.metric} on {seen.split}"
        click.echo(f"Best so far: {words}, seed {seen.best.seed}: {score}.")
    if seen.left_s is not None:
        click.echo(f"Time left: about {duration(seen.left_s)} at {seen.running} at once.")
    rows = [[device, str(n), duration(s)] for device, (n, s) in seen.devices.items()]
    if rows:
        _print_table(["device", "trials", "device time"], rows)
    for trial_id, error in seen.failures[:MOST_FAILURES]:
        click.echo(f"Failed: {trial_id}: {error}")
    if len(seen.failures) > MOST_FAILURES:
        click.echo(f"... and {len(seen.failures) - MOST_FAILURES} more.")


@main.command("list", epilog=_examples("list studies", "list methods"))
@click.argument("kind", type=click.Choice(["methods", "studies", "datasets", "backbones"]))
def list_(kind: str) -> None:
    """List what there is: methods, studies, datasets or backbones.

    The time of a study is estimated from one trial that is timed for a moment on this machine. It
    is that of one worker for all trials, whether or not some have been run.
    """
    _print_table(*_LISTS[kind]())


@main.command(
    epilog=_examples(
        "report depth_vs_position", "report runs/studies/depth_vs_position", "report --paper"
    )
)
@click.argument("run", required=False)
@click.option("--paper", is_flag=True, help="Recompute the paper's own averages from its cells.")
@_out
def report(run: str | None, paper: bool, out: str) -> None:
    """Draw a run's figures and tables again, without training. RUN is its name or folder."""
    if paper == (run is not None):
        raise UserError("Give either a run, as in `harness report depth_vs_position`, or --paper.")
    if run is not None:
        from harness.runs import known_run

        _write_report(known_run(run, Path(out)))
        return
    from reports.paper_check import by_table, check, clashes, mixture

    checked = check()
    table = by_table(checked)
    _print_table(list(table.columns), table.to_numpy().tolist())
    rules = mixture(checked)
    if len(rules) > 1:
        words = "; ".join(f"{rule} in {', '.join(tables)}" for rule, tables in rules.items())
        click.echo(f"\nNo single rule gives all averages: {words}.")
    click.echo("\nThe same cells, with other averages or under other names:")
    rows = [list(clash) for clash in clashes()]
    _print_table(["dataset", "one", "other"], rows)


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


@main.command(epilog=_examples("bench", "bench --workers 8 --trials 1000"))
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--trials", type=click.IntRange(min=1), default=200, show_default=True)
def bench(workers: int, trials: int) -> None:
    """Measure what the harness costs beside training.

    Of engines: the workers' time beyond that of the trials, per trial, with trials of 5 ms that
    train nothing. Ray Tune by itself starts a process per trial, so fewer are run. Of searches:
    the time of one proposal when many trials are known.
    """
    from harness.bench import measure, measure_asks

    asks = [
        [ask.search, str(ask.told), str(ask.variables), f"{ask.seconds:.2f}"]
        for ask in measure_asks()
    ]
    _print_table(["search", "told trials", "variables", "one proposal (s)"], asks)
    rows = [
        [row.engine, str(row.trials), f"{row.startup_s:.1f}", f"{row.per_trial_ms:.1f}"]
        for row in measure(workers, trials, max(workers, trials // 10))
    ]
    _print_table(["engine", "trials", "start (s)", "overhead per trial (ms)"], rows)


def _weights_file(
    settings: tuple[str, ...], weights: str | None
) -> tuple[tuple[str, ...], Path | None]:
    """The settings with a weights file's hash in its place, and the file.

    `--weights FILE` is short for `--set backbone.weights=FILE`. A trial's request holds no path.
    """
    rest = []
    for pair in settings:
        field, _, text = pair.partition("=")
        if field != "backbone.weights":
            rest.append(pair)
        elif weights is not None:
            raise UserError(f"--set {pair} and --weights {weights}: give one of them.")
        elif text in ("pretrained", "random"):
            return settings, None
        else:
            weights = text
    if weights is None:
        return settings, None
    from harness.weights import sha256_of

    path = Path(weights).absolute()
    digest = sha256_of(path)
    return (*rest, "backbone.weights=file", f"backbone.sha256={digest}"), path


@main.group(
    epilog=_examples(
        "data check folder --data-root my_images",
        "data pack mstar --data-root mstar --size 96",
        "data bench rsscn7 --data-root rsscn7 --size 96",
    )
)
def data() -> None:
    """Look at, pack and time a dataset on disk. Nothing is downloaded unasked."""


_dataset_name = click.argument("name")


@data.command(
    epilog=_examples(
        "data check mstar",
        "data check folder --data-root my_images",
        "data check mstar --data-root mstar --set data.options.imbalance=50",
        "data check fusrs --data-root fusrs --set data.options.dedupe=true",
        "data check cifar100_lt --data-root cifar --download",
    )
)
@_dataset_name
@_data_root
@click.option(
    "--download",
    is_flag=True,
    help="Get what is not there yet, with torchvision's loader, where it has one.",
)
@_set
@_out
def check(
    name: str, data_root: str | None, download: bool, settings: tuple[str, ...], out: str
) -> None:
    """Read every image of a dataset, count its classes, and name what is wrong with it.

    Wrong are images that cannot be read, that are there twice or in train and in test, or have two
    labels; classes without a test image; and packs in --out that were damaged. Exits with 1 then.
    Without --data-root, say what to download and where to put it. Options of a dataset are fields
    for --set: data.options.imbalance=100 with data.options.tail=exp, pareto or a CSV of counts, ...
    """
    from harness.data_check import check as checked
    from harness.download import download as fetch
    from harness.files import MissingData

    dataset, options = _file_dataset(name, settings)
    if data_root is None:
        if download:
            raise UserError("--download needs a folder to download into: give --data-root.")
        click.echo(dataset.layout)
        return
    try:
        if download:
            fetch(dataset, name, options, Path(data_root))
        found = checked(dataset, name, options, _root(data_root), _packs(out))
    except MissingData:
        click.echo(dataset.layout)
        raise
    group_of = {label: group for group, labels in found.groups.items() for label in labels}
    rows = [
        [cls, group_of.get(label, "-"), *(str(part[label]) for part in _counted(found))]
        for label, cls in enumerate(found.listing.classes)
    ]
    for group, labels in found.groups.items():
        counts = (str(part[list(labels)].sum()) for part in _counted(found))
        rows.append([f"all {len(labels)} of", group, *counts])
    rows.append(["all", "", *(str(part.sum()) for part in _counted(found))])
    _print_table(["class", "group", "train", "train used", "test"], rows)
    for note in found.listing.notes:
        click.echo(f"Note: {note}")
    for problem in found.problems:
        click.echo(f"Problem: {problem}.")
    if found.problems:
        sys.exit(EXIT_PROBLEMS)
    click.echo("No problem found.")


@data.command(epilog=_examples("data pack mstar --data-root mstar --size 224"))
@_dataset_name
@_data_root
@click.option(
    "--size",
    type=click.IntRange(min=8),
    default=224,
    show_default=True,
    help="Side of the backbone's input, in pixels.",
)
@_on_bad_image
@_set
@_out
def pack(
    name: str,
    data_root: str | None,
    size: int,
    on_bad_image: str,
    settings: tuple[str, ...],
    out: str,
) -> None:
    """Decode a dataset once, into a file that trials map into memory; so do trials themselves."""
    from harness.pack import open_pack, pack_folder, side_for

    sha256 = _pack(name, data_root, size, on_bad_image, settings, out)
    folder = pack_folder(_packs(out), name, side_for(size), sha256)
    opened = open_pack(folder)
    megabytes = len(opened.pixels) / 2**20
    click.echo(f"{folder}: {len(opened.index.labels)} images, {megabytes:.0f} MiB, sha256 {sha256}")


@data.command("bench", epilog=_examples("data bench rsscn7 --data-root rsscn7 --size 96"))
@_dataset_name
@_data_root
@click.option("--size", type=click.IntRange(min=8), default=96, show_default=True)
@_set
@_out
def bench_(
    name: str, data_root: str | None, size: int, settings: tuple[str, ...], out: str
) -> None:
    """Training views per second: a pack on 2 threads, and PIL in a loader of 2 processes."""
    from harness.data_bench import measure
    from harness.packed import load_packed
    from harness.spec import DataSpec

    sha256 = _pack(name, data_root, size, "stop", settings, out)
    dataset, options = _file_dataset(name, settings)
    spec = DataSpec(name=name, options=options.model_dump(mode="json"), sha256=sha256)
    root = Path(str(data_root))  # packing has looked at it
    items = dataset.listing(options, root).train
    speed = measure(load_packed(spec, size, str(_packs(out))).train, items, root, size)
    rows = [
        ["PIL loader, 2 processes", f"{speed.loader:.0f}"],
        ["pack, 2 threads", f"{speed.packed:.0f}"],
    ]
    _print_table([f"views of {size} px on 2 cores", "images/s"], rows)
    click.echo(f"Ratio: {speed.packed / speed.loader:.1f}")


def _counted(found: Checked) -> tuple[Counts, ...]:
    return found.train, found.used, found.test


def _root(data_root: str) -> Path:
    root = Path(data_root)
    if not root.is_dir():
        raise UserError(f"--data-root {data_root} is not a folder.")
    return root


def _file_dataset(name: str, settings: tuple[str, ...]) -> tuple[FileDataset, Any]:
    """A dataset on disk and its options"""
    from harness.packed import is_on_disk
    from harness.registry import DATASETS
    from harness.spec import TrialRequest, validated

    if not is_on_disk(name):
        raise UserError(f"Dataset {name} is drawn, not read from files: there is nothing to check.")
    values = {"data": name, **_settings(settings)}
    request = TrialRequest().with_values(values, source="--set")
    dataset = DATASETS.get(name)
    return dataset, validated(dataset.Options, request.data.options, source=f"data {name}")


def _pack(
    name: str,
    data_root: str | None,
    size: int,
    on_bad_image: str,
    settings: tuple[str, ...],
    out: str,
) -> str:
    from harness.packed import pack_of

    _, options = _file_dataset(name, settings)
    place = (data_root, str(_packs(out)), on_bad_image)
    info = pack_of(name, options.model_dump_json(), size, *place)
    return info.sha256


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


def _loaded(
    name: str,
    settings: tuple[str, ...],
    smoke: bool,
    seeds: int | None = None,
    select_on: str | None = None,
) -> tuple[Study, str]:
    """A study at the scale, with the settings and the seeds that were asked for; its run's name.

    Other seeds are of the same run.
    """
    from harness.study import load_study

    study, values = load_study(name), _settings(settings)
    if select_on is not None:
        values["data.select_on"] = select_on
    run_name = study.name + _variant(values) + ("+smoke" if smoke else "")
    study = study.at_smoke_scale() if smoke else study
    if values:
        study = study.derive(base=study.base.with_values(values, source="--set"))
    if seeds is not None:
        study = study.derive(seeds=tuple(range(seeds)))
    return study, run_name


def _variant(values: dict[str, Any]) -> str:
    """Part of the run's folder name that tells changed settings from the study's own."""
    shown = {f: v[:8] if f == "backbone.sha256" else v for f, v in values.items()}
    words = [f"{field}={value}" for field, value in sorted(shown.items())]
    return "".join(f"+{word}" for word in words).replace("/", "_").replace(" ", "")


def _runtime(
    device: str | None,
    where: tuple[str, str | None, str] = ("runs", None, "stop"),
    backbone: BackboneSpec | None = None,
    weights: Path | None = None,
) -> Runtime:
    """Where trials run. A weights file is tried on its backbone here, before the first of them.

    `where` is --out, --data-root and --on-bad-image.
    """
    import torch

    from harness.backbones import unused_tensors
    from harness.trial import Runtime, default_device
    from harness.weights import left_over

    name = device or default_device()
    try:
        if torch.device(name).type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"Device {name!r} is not there: this machine has no CUDA GPU.")
    except RuntimeError as error:
        raise UserError(f"Unknown device {name!r}: write cpu, cuda or cuda:N.") from error
    if backbone is not None and weights is not None:
        unused = unused_tensors(backbone, weights)
        if unused:
            click.echo(left_over(unused, weights), err=True)
    out, data_root, on_bad_image = where
    return Runtime(
        device=name,
        weights=weights,
        data_root=data_root,
        packs=str(_packs(out)),
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
    )


def _packs(out: str) -> Path:
    """Where datasets are packed: beside the store, so that machines which share it share them."""
    return Path(out).resolve() / "packs"


def _local_workers(asked: int | None, runtime: Runtime) -> int:
    """Processes on this machine: as many as asked for, or one per core or GPU."""
    import torch

    if runtime.device == "cuda":
        return asked or torch.cuda.device_count()
    return asked or (1 if runtime.device.startswith("cuda") else len(os.sched_getaffinity(0)))


def _members(store: Store, name: str) -> tuple[str, ...]:
    """The trials that a name stands for: those of a comparison's first arm, or the one itself."""
    from harness.comparison import Comparison

    path = store.root / "studies" / name / "comparison.json"
    if not path.is_file():
        return (name,)
    return Comparison.model_validate_json(path.read_text()).arms[0].trials


NO_IDENTITY = {
    *("out", "device", "workers", "engine", "address", "gpus_per_trial", "max_retries", "keep"),
    *("data_root", "dry_run"),
}
"""Parameters that cannot change a trial's numbers."""


def _typed() -> str:
    """The command that is being run, without what cannot change a number."""
    import shlex

    context = click.get_current_context()
    words = ["harness", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in NO_IDENTITY or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if value is True:
            words.append(parameter.opts[-1])
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [parameter.opts[-1], str(each)]
    return shlex.join(words)


def _trial(store: Store, trial_id: str) -> TrialRecord:
    record = store.record(trial_id)
    if record is None:
        known = [path.parent.name for path in store.trials.glob("*/record.json")]
        raise unknown("trial", trial_id, known)
    return record


def _print_plan(plan: Plan, runtime: Runtime, workers: int) -> None:
    from harness.batch import duration

    study = plan.study
    click.echo(f"{study.name}: {study.question}")
    to_run = len(plan.to_run) - plan.running - plan.failed
    workers = min(workers, max(1, len(plan.to_run)))
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
        wall = f"{duration(device_s / workers)} with {workers} workers"
        click.echo(f"Estimated cost: {duration(device_s)} of {runtime.device}, {wall}.")


def _write_report(folder: Path) -> None:
    from reports.page import write_report

    for path in write_report(folder):
        click.echo(f"Wrote {path}")


def _print_markdown(path: Path) -> None:
    """A report as text: rendered for a terminal, as it is for a pipe."""
    from rich.console import Console
    from rich.markdown import Markdown

    text = path.read_text()
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        click.echo(text)


def _write_gamma(trials: list[Path]) -> None:
    """Say what the trials learned, if they did, and draw it beside each one's record."""
    from reports.content import say_learned
    from reports.page import write_gamma

    sentence = say_learned(trials)
    if sentence is not None:
        click.echo(sentence)
    for trial in trials:
        for path in write_gamma(trial):
            click.echo(f"Wrote {path}")


def _print_records(records: list[TrialRecord]) -> None:
    """Identity and cost of each trial, and their mean scores."""
    from pandas import Series

    from harness.insertion import get_method
    from reports.frames import mean_and_half_width
    from reports.words import with_interval

    for record in records:
        spec, cost = record.spec, record.cost
        sites = ", ".join(spec.placement.root) or "none"
        if len(spec.placement) > 6:
            sites = f"{len(spec.placement)} sites"
        method = get_method(spec.method)
        name = method.label(spec.method, method.parse_options(spec.options))
        click.echo(f"{record.trial_id}  {name}  {sites}  seed {spec.seed}  {record.status}")
        click.echo(
            f"  {record.trainable_params} PEFT + {record.head_params} head parameters; "
            f"{cost.device_s:.1f} device s, {cost.flops / 1e12:.2f} TFLOP, "
            f"{record.epochs_run} epochs"
        )
    scored = [record for record in records if record.test is not None]
    if not scored:
        return
    assert scored[0].test is not None
    label = "validation" if scored[0].spec.data.select_on == "val" else "test (selected on)"
    rows = []
    for name, part in ((label, "select"), ("test", "test")):
        scores = [getattr(record, part) for record in scored]
        columns = [[s.groups[group] for s in scores] for group in scored[0].test.groups]
        columns += [[getattr(s, m) for s in scores] for m in ("class_mean", "group_mean", "micro")]
        values = [mean_and_half_width(100 * Series(column, dtype=float)) for column in columns]
        rows.append([name, *(with_interval(*value) for value in values)])
    header = ["accuracy %", *scored[0].test.groups, "class mean", "group mean", "micro"]
    _print_table(header, rows)
    if len(scored) > 1:
        click.echo(f"Mean ± 95 % interval over {len(scored)} seeds.")


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
    from harness.batch import duration
    from harness.compare_searches import BUDGET, REPEATS_LIVE
    from harness.compare_searches import Wanted as Contestants
    from harness.estimate import Estimate
    from harness.study import load_study, study_names

    runtime = _runtime(None)
    reference = load_study("depth_vs_position").base.with_values(
        {"positions": "mlp1"}, source="depth_vs_position"
    )
    estimate = Estimate(reference, runtime)
    rows = []
    for name in study_names():
        study = load_study(name)
        trials = len(study.cells()) * len(study.seeds) if study.trains else 0
        device_s = estimate.device_s(study)
        if study.searches is not None and device_s is not None:
            searches = Contestants(searches=study.searches, budget=BUDGET).names([])
            device_s /= trials
            trials = len(searches) * REPEATS_LIVE * int(BUDGET)
            device_s *= trials
        cost = "unknown" if device_s is None else f"~{duration(device_s)}" if trials else "none"
        rows.append([name, study.paper, str(trials), cost, study.question])
    header = ["study", "paper", "trials", f"{runtime.device} time, est.", "question"]
    return header, rows


def _list_datasets() -> tuple[list[str], list[list[str]]]:
    from harness.registry import DATASETS

    return ["dataset", "what it is"], [[n, DATASETS.get(n).summary] for n in DATASETS.names()]


def _list_backbones() -> tuple[list[str], list[list[str]]]:
    from harness.backbones import EMBEDDED, PRESETS
    from harness.blocks import SUPPORTED

    rows = [[name, "embedded, pre-trained on SYNTHETIC data"] for name in EMBEDDED]
    rows += [[name, words] for name, words in PRESETS.items()]
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
