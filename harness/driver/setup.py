"""What was asked for, made ready to run: a study with its settings, a runtime, an engine.

The command line and `harness.entry` build the same requests, so that both give the same trials in
the same runs. Owns: the meaning of what several requests have in common. Must not know: what is
done with it, how it was typed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.catalogue.studies import known_study
from harness.console import SILENT, Console
from harness.data.contract import is_drawn
from harness.driver.again import AGAIN
from harness.driver.batch import Batch
from harness.driver.logged import LoggedEngine, Logs
from harness.driver.request import EngineRequest, Keep, PlaceRequest, StudyRequest, parse_size
from harness.engines.base import Engine, StartEngine, local_workers
from harness.engines.local import LocalEngine
from harness.errors import UserError
from harness.model.backbones import try_weights
from harness.model.weight_files import sha256_of
from harness.runner.prepare import look_again
from harness.runner.runtime import ActivationCache, Runtime, default_device
from harness.spec import BackboneSpec, Recipe, TrialRequest, TrialSpec
from harness.store.activations import NAME as CACHE
from harness.store.run_folder import variant
from harness.store.runs import choosing_by
from harness.store.store import Store
from harness.study.axes import Axis, Switches, in_words
from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study ready to be run."""

    study: Study
    run_name: str
    store: Store
    runtime: Runtime
    engine: EngineRequest
    logs: Logs | None = None
    """Where the trials are written to while they run."""

    @property
    def workers(self) -> int:
        """Processes of this machine that run trials."""
        return local_workers(self.engine.workers, self.runtime)

    def batch(self, base: TrialRequest | None = None, keep: Keep = "none") -> Batch:
        """What runs trials made of `base`, by default the study's, on the runtime's console."""
        runtime = self.runtime if keep == "none" else replace(self.runtime, keep_weights=True)
        return Batch(
            store=self.store,
            base=base or self.study.base,
            start_engine=engine_starter(self.engine, runtime, self.logs),
            runtime=runtime,
            max_retries=self.engine.max_retries,
            keep=keep,
            console=runtime.console,
        )

    def keeping(self, **what: bool) -> Prepared:
        """The same with other of the runtime's `keep_` fields."""
        return replace(self, runtime=replace(self.runtime, **what))  # type: ignore[arg-type]

    def expecting(self, specs: Sequence[TrialSpec]) -> Prepared:
        """The same, for these trials (`expecting`)."""
        return replace(self, runtime=expecting(self.runtime, specs))


def prepare(
    asked: StudyRequest, place: PlaceRequest, engine: EngineRequest, console: Console
) -> Prepared:
    """Everything that a command needs to run a study; nothing is left in the store.

    Raises:
        UserError: one of the requests makes no sense, or names something that is not there.
    """
    place.store.refuse_unmakeable(is_dry=place.is_dry)
    settings, file = with_weights(asked.settings, asked.weights)
    study, run_name = asked_study(asked, settings)
    if place.data_root is not None or place.on_bad_image == "skip":  # every cell is looked at
        refuse_root(place, {request.data.name for _, request in study.cell_requests()})
    runtime = make_runtime(place, study.base.backbone, file, console)
    _refuse_engine(engine, runtime)
    return Prepared(
        study=study,
        run_name=run_name,
        store=place.store,
        runtime=runtime,
        engine=engine,
        logs=Logs.of(place.log, run_name, console, is_dry=place.is_dry),
    )


def _refuse_engine(asked: EngineRequest, runtime: Runtime) -> None:
    """Whether workers can be what is asked for, on this device; as the engine itself will say.

    Raises:
        UserError: they cannot.
    """
    on_gpu = runtime.device.startswith("cuda")
    # Two and more are so many processes that train a trial together, which they do on CPUs too.
    if asked.gpus_per_trial is not None and asked.gpus_per_trial <= 1 and not on_gpu:
        raise UserError(
            f"--gpus-per-trial {asked.gpus_per_trial:g}: trials run on {runtime.device}; leave it "
            "out, or give --device cuda."
        )
    if asked.kind == "slurm":
        from harness.engines.slurm import refuse_options

        refuse_options(asked.slurm, on_gpu)


def refuse_root(
    place: PlaceRequest,
    datasets: Iterable[str],
    instead: str = "name a dataset, as in --set data=folder",
) -> None:
    """Whether a folder of images, or what to do with bad ones, was given for drawn datasets alone.

    Raises:
        UserError: it was; says what to do instead.
    """
    names = sorted(datasets)
    if place.data_root is not None and all(is_drawn(name) for name in names):
        raise UserError(
            f"--data-root {place.data_root}: {', '.join(names)} is drawn, not read from files; "
            f"{instead}."
        )
    if place.on_bad_image == "skip" and all(is_drawn(name) for name in names):
        raise UserError(
            f"--on-bad-image skip: {', '.join(names)} is drawn, so no image of it can be bad."
        )


def with_weights(
    settings: Mapping[str, Any], weights: str | None
) -> tuple[dict[str, Any], Path | None]:
    """The settings with a weights file's hash in its place, and the file.

    A trial's request holds no path.

    Raises:
        UserError: two files are named, or one that cannot be read.
    """
    values = dict(settings)
    for field in ("backbone.sha256", "data.sha256"):
        if values.get(field) is not None:
            raise UserError(f"--set {field}: it is computed of the files that are given.")
    named = values.get("backbone.weights")
    if named is not None:
        if weights is not None:
            raise UserError(
                f"--set backbone.weights={named} and --weights {weights}: give one of them."
            )
        if named in ("pretrained", "random"):
            return values, None
        weights = str(named)
    if weights is None:
        return values, None
    path = Path(weights).absolute()
    values |= {"backbone.weights": "file", "backbone.sha256": sha256_of(path)}
    return values, path


def asked_study(asked: StudyRequest, settings: Mapping[str, Any]) -> tuple[Study, str]:
    """A study at the scale, with the settings and the seeds that were asked for; its run's name.

    Other seeds are of the same run.
    """
    study, values = known_study(asked.study), dict(settings)
    if asked.select_on is not None:
        if "data.select_on" in values:
            raise UserError(
                f"--select-on {asked.select_on} and --set data.select_on="
                f"{values['data.select_on']}: give one of them."
            )
        values["data.select_on"] = asked.select_on
    if "seed" in values:
        raise UserError(
            "--set seed: a study runs seeds of its own, which would override it; `--seeds N` runs "
            "seeds 0 to N-1."
        )
    for field in values:
        axis = study.varied_by(field)
        if axis is not None:
            raise UserError(
                f"--set {field}: study {study.name} varies {axis.field}, which "
                f"would override it; `harness sweep --only {axis.field}=VALUE` takes some values."
            )
    if asked.only:  # a study is checked whole whenever it is made
        study = study.only(asked.only)
    restricted = {axis.field: _listed(axis) for axis in study.axes if axis.field in asked.only}
    study, chosen_by = choosing_by(study, asked.objective)
    named = variant({**values, **restricted, **chosen_by})
    run_name = study.name + named + ("+smoke" if asked.smoke else "")
    study = study.at_smoke_scale() if asked.smoke else study
    if values:
        study = study.derive(base=study.base.with_values(values, source="--set"))
        refuse_idle(study.base.recipe, values, study)
    if asked.seeds is not None:
        study = study.derive(seeds=tuple(range(asked.seeds)))
    return study, run_name


def refuse_chosen(study: Study, settings: Mapping[str, Any]) -> None:
    """Whether a search chooses what was set, so that the setting would have no effect.

    Raises:
        UserError: it does; names the field.
    """
    for part in study.space:
        if isinstance(part, Switches):
            chosen = {"placement", "positions", "depth", "alpha"}
        else:
            chosen = part.fields_set if isinstance(part, Axis) else {part.field}
        for field in settings:
            named = [(f"{each}.", f"{field}.") for each in chosen]
            if any(one.startswith(other) or other.startswith(one) for one, other in named):
                raise UserError(
                    f"--set {field}: a search of study {study.name} chooses it: leave it out, or "
                    "change the space in a study of your own."
                )


def refuse_idle(recipe: Recipe, values: Mapping[str, Any], study: Study | None = None) -> None:
    """Whether a setting changes nothing of a recipe, and so would only give trials other names.

    Raises:
        UserError: one does, and `study` does not vary what it needs; names that.
    """
    for name, needed in recipe.idle.items():
        field = f"recipe.{needed}"
        parts = () if study is None else (*study.axes, *study.space)
        varied = {each for part in parts if isinstance(part, Axis) for each in part.fields_set}
        if f"recipe.{name}" in values and not varied & {field, "recipe"}:
            raise UserError(
                f"--set recipe.{name}={getattr(recipe, name):g} has no effect with {field}="
                f"{getattr(recipe, needed)}: leave one of them out."
            )


def _listed(axis: Axis) -> str:
    return ",".join(map(in_words, axis.values))


def make_runtime(
    place: PlaceRequest,
    backbone: BackboneSpec | None = None,
    weights: Path | None = None,
    console: Console = SILENT,
    *,
    keep_weights: bool = False,
) -> Runtime:
    """Where trials run; datasets on disk are looked at anew from here on.

    A weights file is tried on its backbone here, before the first trial.

    Raises:
        UserError: there is no such device, or the weights do not fit the backbone.
    """
    look_again()  # from Python, many commands are given to one process
    name = place.device or default_device()
    check_device(name)
    if backbone is not None and weights is not None:
        for line in try_weights(backbone, weights).words(weights):
            console.warn(line)
    budget = parse_size(place.cache)
    folder = Path(place.out).resolve() / CACHE
    return Runtime(
        device=name,
        keep_weights=keep_weights,
        cache=ActivationCache(folder=folder, budget=budget) if budget else None,
        weights=weights,
        data_root=place.data_root,
        packs=str(packs_folder(place.out)),
        packs_images=not place.is_dry,
        on_bad_image=place.on_bad_image,
        console=console,
    )


def check_device(name: str) -> None:
    """Whether trials can run on a device of this name, here.

    Raises:
        UserError: torch knows no such device, the harness does not run on it, or it is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"Unknown device {name!r}: write cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"Device {name!r} is none that trials run on: write cpu, cuda or cuda:N.")
    if device.type == "cpu" and device.index:
        raise UserError(f"Device {name!r} is not there: a machine has one cpu; write cpu.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"Device {name!r} is not there: this machine has no CUDA GPU.")
    if device.index is not None and device.index >= max(1, torch.cuda.device_count()):
        raise UserError(
            f"Device {name!r} is not there: this machine has {torch.cuda.device_count()} of them."
        )


def expecting(runtime: Runtime, specs: Sequence[TrialSpec]) -> Runtime:
    """The runtime for these trials: activations are kept where most of them can begin."""
    if runtime.cache is None or not specs:
        return runtime
    lowest = Counter(
        min((site.block for site, _ in spec.placement.items()), default=None) for spec in specs
    )
    return replace(runtime, cache=replace(runtime.cache, uses=tuple(lowest.items())))


def packs_folder(out: str) -> Path:
    """Where datasets are packed: beside the store, so that machines which share it share them."""
    return Path(out).resolve() / "packs"


def engine_starter(asked: EngineRequest, runtime: Runtime, logs: Logs | None = None) -> StartEngine:
    """How to start the engine on a store, for trials that report or not; followed by loggers."""
    start = _starter(asked, runtime)
    if logs is None:
        return start

    def logged(store: Store, watch: bool) -> Engine:
        engine = start(store, watch)
        # What is trained again for its tensors has been written when it was trained.
        return engine if store.root.name == AGAIN else LoggedEngine(engine, store, logs)

    return logged


def _starter(asked: EngineRequest, runtime: Runtime) -> StartEngine:
    theirs = runtime.of_workers()
    if asked.kind == "local":

        def local(store: Store, watch: bool) -> Engine:
            count = local_workers(asked.workers, theirs)
            return LocalEngine(store=store, runtime=theirs, workers=count, watch=watch)

        return local

    if asked.kind == "slurm":

        def on_slurm(store: Store, watch: bool) -> Engine:
            from harness.engines.slurm import SlurmEngine

            return SlurmEngine(
                store=store,
                runtime=theirs,
                workers=asked.workers or 1,
                options=asked.slurm,
                watch=watch,
            )

        return on_slurm

    def on_ray(store: Store, watch: bool) -> Engine:
        if watch:
            asked.refuse_watching("this search")
        from harness.engines.ray_tune import RayEngine

        return RayEngine(
            store=store,
            runtime=theirs,
            workers=asked.workers,
            gpus_per_trial=asked.gpus_per_trial or 1.0,
            address=asked.address,
            watch=watch,
        )

    return on_ray
