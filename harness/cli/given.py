"""What was given on the command line, made into what the harness takes.

Owns: the meaning of the options that several commands have, and how a run remembers what was typed.
Must not know: what a command does with it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.engines.base import Engine
    from harness.runner.runtime import Runtime
    from harness.spec import BackboneSpec
    from harness.store.store import Store
    from harness.study.study import Study


def parse_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
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


def settings_and_weights(
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
    from harness.model.weights import sha256_of

    path = Path(weights).absolute()
    digest = sha256_of(path)
    return (*rest, "backbone.weights=file", f"backbone.sha256={digest}"), path


def asked_study(
    name: str,
    settings: tuple[str, ...],
    smoke: bool,
    seeds: int | None = None,
    select_on: str | None = None,
) -> tuple[Study, str]:
    """A study at the scale, with the settings and the seeds that were asked for; its run's name.

    Other seeds are of the same run.
    """
    from harness.catalogue.studies import load_study
    from harness.store.runs import variant

    study, values = load_study(name), parse_settings(settings)
    if select_on is not None:
        values["data.select_on"] = select_on
    run_name = study.name + variant(values) + ("+smoke" if smoke else "")
    study = study.at_smoke_scale() if smoke else study
    if values:
        study = study.derive(base=study.base.with_values(values, source="--set"))
    if seeds is not None:
        study = study.derive(seeds=tuple(range(seeds)))
    return study, run_name


def make_runtime(
    device: str | None,
    where: tuple[str, str | None, str] = ("runs", None, "stop"),
    backbone: BackboneSpec | None = None,
    weights: Path | None = None,
) -> Runtime:
    """Where trials run. A weights file is tried on its backbone here, before the first of them.

    `where` is --out, --data-root and --on-bad-image.
    """
    import torch

    from harness.model.backbones import unused_tensors
    from harness.model.weights import left_over
    from harness.runner.runtime import Runtime, default_device

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
        packs=str(packs_folder(out)),
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
    )


def packs_folder(out: str) -> Path:
    """Where datasets are packed: beside the store, so that machines which share it share them."""
    return Path(out).resolve() / "packs"


def engine_starter(
    kind: str,
    store: Store,
    runtime: Runtime,
    workers: int | None,
    gpus_per_trial: float | None,
    address: str | None,
) -> Callable[[bool], Engine]:
    """How to start the engine for trials that report or not."""
    from harness.engines.base import local_workers
    from harness.engines.local import LocalEngine

    if kind == "local":
        for flag, value in (("gpus-per-trial", gpus_per_trial), ("address", address)):
            if value is not None:
                raise UserError(f"--{flag} is for --engine ray; use --workers to share GPUs.")

        def local(watch: bool) -> Engine:
            count = local_workers(workers, runtime)
            return LocalEngine(store=store, runtime=runtime, workers=count, watch=watch)

        return local
    if gpus_per_trial is not None and gpus_per_trial > 1 and gpus_per_trial % 1:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g}: above 1 it must be a whole number.")

    def on_ray(watch: bool) -> Engine:
        from harness.engines.ray_tune import RayEngine

        return RayEngine(
            store=store,
            runtime=runtime,
            workers=workers,
            gpus_per_trial=gpus_per_trial or 1.0,
            address=address,
            watch=watch,
        )

    return on_ray


NO_IDENTITY = {
    *("out", "device", "workers", "engine", "address", "gpus_per_trial", "max_retries", "keep"),
    "dry_run",
}
"""Parameters that cannot change a trial's numbers."""
PLACES = {"weights", "data_root"}
"""Parameters whose paths differ between machines; a trial knows what lies there by its hash."""


def typed_command() -> str:
    """The command that is being run, without what cannot change a number.

    Where files lie is left open: `--data-root FOLDER`, in the words of `--help`.
    """
    context = click.get_current_context()
    words = ["harness", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in NO_IDENTITY or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = parameter.metavar if name in PLACES else context.params[name]
        # A flag, or an option whose value was left out.
        if value is True or value == getattr(parameter, "flag_value", None):
            words.append(parameter.opts[-1])
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [parameter.opts[-1], str(each)]
    return shlex.join(words)
