"""What is made for use elsewhere: `export`, and `predict`, which uses what was exported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.given import place_given
from harness.cli.options import (
    Place,
    bad_image_option,
    data_root_option,
    device_option,
    examples,
    out_option,
    study_file_option,
    weights_option,
)
from harness.cli.terminal import TERMINAL
from harness.errors import UserError, saving

if TYPE_CHECKING:
    from harness.driver.request import PlaceRequest
    from harness.store.records import TrialRecord
    from harness.store.run_folder import RunFolder
    from harness.store.store import Store

EXPORTS = {"adapter.json", "adapter_config.json", "config.json"}
"""Of these files every folder has one that `export` wrote a README into."""


@click.command(
    epilog=examples(
        "export depth_vs_position --best best/",
        "export depth_vs_position --merged checkpoint/ --peft adapter/",
        "export 1d0932a60454a8f7 --weights adapter/",
        "export placement.json --peft config/",
        "export placement.json --peft config/ --names dinov3_vit",
        "export depth_vs_position --csv trials.csv --parquet trials.parquet",
        "export depth_vs_position+tpe --optuna sqlite:///tpe.db",
    )
)
@click.argument("source")
@click.option(
    "--best",
    type=Place(file_okay=False),
    help="Of a run: folder for its best trial, as --weights of that trial.",
)
@click.option("--weights", type=Place(file_okay=False), help="Folder for safetensors and JSON.")
@click.option("--peft", type=Place(file_okay=False), help="Folder for a Hugging Face peft adapter.")
@click.option(
    "--names",
    metavar="MODEL",
    help="Of a placement: timm (the default), or whose layers in transformers: vit, dinov3_vit, "
    "siglip_vision_model.",
)
@click.option(
    "--merged",
    type=Place(file_okay=False),
    help="Folder for a timm checkpoint, with the trained modules merged into its weights.",
)
@click.option("--csv", type=Place(dir_okay=False), help="Of a run: a row per trial; - prints them.")
@click.option("--parquet", type=Place(dir_okay=False), help="Of a run: the same, typed.")
@click.option("--optuna", metavar="URL", help="Of a run: database for optuna-dashboard.")
@click.option("--tensorboard", type=Place(file_okay=False), help="Of a run: folder for its curves.")
@click.option(
    "--backbone",
    type=Place(dir_okay=False),
    metavar="FILE",
    help="Local weights of the backbone, where the trial was given some with its --weights.",
)
@study_file_option(is_passed_on=True)
@data_root_option
@bad_image_option
@device_option
@out_option
def export(
    source: str,
    best: str | None,
    weights: str | None,
    peft: str | None,
    names: str | None,
    merged: str | None,
    csv: str | None,
    parquet: str | None,
    optuna: str | None,
    tensorboard: str | None,
    backbone: str | None,
    study: str | None,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    out: str,
) -> None:
    """Write trained modules, a placement to be trained, or a run's trials for other tools.

    SOURCE is a trial, a file from `harness derive`, or a run. Of a run, --best, --weights, --peft
    and --merged are of its best trial, as its report chooses it. A trial that kept no weights is
    trained again for them, and must score what its record says.
    """
    from harness.store.runs import find_run

    tensors = {"weights": weights, "peft": peft, "merged": merged}
    tables = {"csv": csv, "parquet": parquet, "optuna": optuna, "tensorboard": tensorboard}
    run = find_run(source, Path(out))
    if run is None:
        _refuse({**tables, "best": best}, f"for a run, and {source!r} is none of `harness runs`")
    else:
        tensors |= {"best": best}
    given = tensors if run is None else {**tables, **tensors}
    if not any(given.values()):
        raise UserError(f"Nothing to export: give {' or '.join(f'--{flag}' for flag in given)}.")
    _refuse_same(given)
    _refuse_mixed(given)
    _refuse_others({flag: value for flag, value in tensors.items() if value is not None})
    is_trial = any(tensors.values()) and not (run is None and source.endswith(".json"))
    if is_trial or run is not None:
        _refuse(
            {"names": names}, "for a placement, whose config has no weights that could be named"
        )
    if not is_trial:
        skips = "skip" if on_bad_image == "skip" else None
        places = {"data-root": data_root, "on-bad-image": skips, "device": device}
        _refuse({"backbone": backbone, "study": study, **places}, "for the modules of a trial")
    place = place_given(
        out if run is None else str(run.store.root), data_root, on_bad_image, device
    )
    again = _Again(place=place, backbone=backbone)
    if run is not None:
        written = _export_run(run, tables)
        if is_trial:
            written += _export_trial(_best_of(run), tensors, again)
    elif is_trial:
        written = _export_trial(place.store.known_record(source), tensors, again)
    else:
        written = _export_placement(source, tensors, names)
    for path in written:
        click.echo(f"Wrote {path}")


def _refuse_mixed(flags: dict[str, str | None]) -> None:
    """Raises `UserError` if standard output would have more than the one table that goes there."""
    for flag, value in flags.items():
        if value == "-" and flag != "csv":
            raise UserError(f"--{flag} -: it cannot be printed; name a place to write it to.")
    if flags.get("csv") == "-" and sum(value is not None for value in flags.values()) > 1:
        raise UserError("--csv - prints the table alone: give the others a command of their own.")


def _refuse_same(flags: dict[str, str | None]) -> None:
    """Raises `UserError` if two of these are of one place, where the later would overwrite."""
    places: dict[str, str] = {}
    for flag, value in flags.items():
        if value is None or flag == "optuna":
            continue
        first = places.setdefault(os.path.realpath(value), flag)
        if first != flag:
            raise UserError(f"--{first} and --{flag} are both of {value}: give each its own.")


def _refuse_others(folders: dict[str, str]) -> None:
    """Raises `UserError` if a folder has a README that is not of an export, and would be lost."""
    for flag, folder in folders.items():
        there = {path.name for path in Path(folder).glob("*")}
        if "README.md" in there and not there & EXPORTS:
            raise UserError(f"--{flag} {folder}: its README.md is of something else; name another.")


def _refuse(flags: dict[str, str | None], why: str) -> None:
    """Raises `UserError` if one of these was given."""
    for flag, value in flags.items():
        if value is not None:
            raise UserError(f"--{flag} is {why}.")


@dataclass(frozen=True, kw_only=True)
class _Again:
    """With what a trial is trained again that kept no weights."""

    place: PlaceRequest
    backbone: str | None

    def run(self, record: TrialRecord, store: Store) -> None:
        """See to it that the trial has its weights, and that its images are packed.

        Raises:
            UserError: what it needs is not there, or it scores otherwise than its record.
        """
        from harness.catalogue.registered import refuse_unregistered
        from harness.driver.again import Again
        from harness.driver.request import EngineRequest
        from harness.driver.setup import engine_starter, make_runtime, refuse_root
        from harness.runner.resolve import refuse_other_inputs

        refuse_unregistered(record.spec)
        if store.weights(record.trial_id).is_file() and self.place.data_root is None:
            return
        refuse_root(self.place, [record.spec.data.name])
        file = self.file(record)
        runtime = make_runtime(self.place, record.spec.backbone, file, TERMINAL, keep_weights=True)
        if self.place.data_root is not None:
            refuse_other_inputs(record.spec, runtime)
        engine = EngineRequest(workers=1)
        Again(
            store=store,
            runtime=runtime,
            start_engine=engine_starter(engine, runtime),
            max_retries=engine.max_retries,
            console=TERMINAL,
        ).keep_weights([record.trial_id])

    def file(self, record: TrialRecord) -> Path | None:
        """The backbone's weights, where the trial has them from a file.

        Raises:
            UserError: it has, and no file is given; or it has not, and one is.
        """
        is_of_file = record.spec.backbone.weights == "file"
        if self.backbone is None and is_of_file:
            raise UserError(
                f"Trial {record.trial_id} has its backbone's weights from a file: name it with "
                "--backbone."
            )
        if self.backbone is not None and not is_of_file:
            raise UserError(
                f"--backbone {self.backbone}: trial {record.trial_id} has its backbone's weights "
                "from no file; leave it out."
            )
        return None if self.backbone is None else Path(self.backbone).absolute()


def _best_of(run: RunFolder) -> TrialRecord:
    """The best trial of a sweep, which is said."""
    from harness.reports.numbers.run import load_run
    from harness.reports.numbers.sweep import best_trial
    from harness.store.runs import refuse_replayed
    from harness.study.axes import cell_words

    refuse_replayed(run)
    if run.kind != "sweep":
        raise UserError(
            f"{run.name} is no sweep, so no trial of it is chosen: name one by its id, from the "
            "report's table of trials."
        )
    loaded = load_run(run, lambda trial_id, why: TERMINAL.warn(why))
    found = best_trial(loaded)
    if found is None:
        raise UserError(f"{run.name} has no trial with scores yet: nothing can be chosen.")
    click.echo(
        f"Best of {run.name}, chosen on {loaded.study.base.data.chosen_on}: "
        f"{cell_words(found.cell)}; trial {found.trial_id}, "
        f"{'of its best seed' if len(loaded.seeds) > 1 else 'seed'} {found.seed}."
    )
    return run.store.known_record(found.trial_id)


def _has_trials(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return "trial_id" in file.readline().split(",")


def _export_placement(source: str, wanted: dict[str, str | None], names: str | None) -> list[Path]:
    from harness.export.lora_config import export_lora_config
    from harness.insertion.placements import read_placement

    peft = wanted["peft"]
    if peft is None or wanted["weights"] is not None or wanted["merged"] is not None:
        raise UserError("A placement file has no weights: export it with --peft alone.")
    chosen: Any = names or "timm"
    return export_lora_config(read_placement(Path(source)), Path(peft), chosen)


def _export_trial(record: TrialRecord, wanted: dict[str, str | None], again: _Again) -> list[Path]:
    from harness.export.trial import export_merged, export_peft, export_weights

    store = again.place.store
    needs_file = wanted["merged"] is not None or again.backbone is not None
    file = again.file(record) if needs_file else None
    again.run(record, store)
    written = []
    for name in ("best", "weights"):
        if (folder := wanted.get(name)) is not None:
            written += export_weights(record, store, Path(folder))
    if wanted["peft"] is not None:
        written += export_peft(record, store, Path(wanted["peft"]))
    if wanted["merged"] is not None:
        written += export_merged(record, store, Path(wanted["merged"]), file)
    return written


def _export_run(folder: RunFolder, wanted: dict[str, str | None]) -> list[Path]:
    from harness.export.run import export_optuna, export_tensorboard, for_export
    from harness.reports.numbers.run import load_run
    from harness.store.files import has_key, refuse_other, replacing
    from harness.store.runs import refuse_replayed

    if not any(wanted.values()):
        return []
    refuse_replayed(folder)
    written: list[Path] = []
    csv, parquet = wanted["csv"], wanted["parquet"]
    if csv not in (None, "-"):
        refuse_other(Path(csv), "--csv", "trials", _has_trials)
    if parquet is not None:
        refuse_other(Path(parquet), "--parquet", "trials", lambda path: has_key(path, b"pandas"))
    if csv is not None or parquet is not None:
        run = load_run(folder, lambda trial_id, why: TERMINAL.warn(why))
        trials = for_export(run.trials, folder.store)
    if csv == "-":
        click.echo(trials.to_csv(index=False), nl=False)
    elif csv is not None:
        with saving(Path(csv)), replacing(Path(csv)) as part:
            trials.to_csv(part, index=False)
        written.append(Path(csv))
    if parquet is not None:
        with saving(Path(parquet)), replacing(Path(parquet)) as part:
            trials.to_parquet(part, index=False)
        written.append(Path(parquet))
    if wanted["optuna"] is not None:
        click.echo(f"Wrote {export_optuna(folder, folder.store, wanted['optuna'])} trials.")
    if wanted["tensorboard"] is not None:
        written.append(export_tensorboard(folder, folder.store, Path(wanted["tensorboard"])))
    return written


@click.command(
    epilog=examples(
        "predict best/ photos/",
        "predict best/ my_images --split test --out predictions.csv",
        "predict best/ photos/ --weights vit_tiny.safetensors",
    )
)
@click.argument("exported", metavar="EXPORT", type=Place())
@click.argument("images", type=Place())
@click.option(
    "--out",
    "path",
    type=Place(dir_okay=False),
    default="predictions.csv",
    show_default=True,
    help="CSV to write.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    help="IMAGES is the data root that was trained on: only its training or test images.",
)
@weights_option
@study_file_option()
@bad_image_option
@device_option
def predict(
    exported: str,
    images: str,
    path: str,
    split: str | None,
    weights: str | None,
    on_bad_image: str,
    device: str | None,
) -> None:
    """Classify images with what `export --best` (or --weights) wrote, into a CSV.

    IMAGES is a folder, at any depth, or one image. A row has the path from there, the label where
    a folder is named for a class, the predicted class, its probability, and that of every class.
    """
    from harness.driver.setup import check_device
    from harness.export.predict import load_export, predictions, write_csv
    from harness.runner.runtime import default_device

    if path == "-":
        raise UserError("--out -: predictions are not printed; name a file.")
    name = device or default_device()
    check_device(name)
    file = None if weights is None else Path(weights)
    model = load_export(Path(exported), file, name)
    found = predictions(
        model,
        Path(images),
        split=split,  # type: ignore[arg-type]
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        console=TERMINAL,
    )
    written = write_csv(Path(path), model.about.classes, found)
    words = f"Wrote {path}: {written.images} images."
    if written.labelled:
        share = 100 * written.right / written.labelled
        words += f" Right are {share:.2f} % of the {written.labelled} whose class is known."
    click.echo(words)
