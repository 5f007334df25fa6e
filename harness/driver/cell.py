"""One configuration, trained on one seed or several.

Owns: what its fields mean beside a study's data, backbone and recipe. Must not know: terminals,
reports, what a configuration is judged against.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalogue.studies import known_study
from harness.console import Console
from harness.driver.batch import TrialRunner, trial_runner
from harness.driver.logged import Logs
from harness.driver.request import EngineRequest, TrainRequest, listed
from harness.driver.said import said
from harness.driver.setup import Prepared, make_runtime, refuse_idle, refuse_root, with_weights
from harness.errors import UserError
from harness.insertion.method import get_method
from harness.insertion.placements import read_placement
from harness.model.backbones import dims
from harness.runner.cost import count_params
from harness.runner.resolve import resolve
from harness.spec import Position, TrialRequest
from harness.store.records import TrialRecord
from harness.store.run_folder import variant
from harness.store.runs import choosing_by, note_of_older

FLAGS = {
    "method": "method",
    "seed": "seed",
    "positions": "sites",
    "placement": "sites",
    "depth": "depth",
    "alpha": "alpha",
}
"""Field of a request -> the flag of `harness train` that sets it."""

BESIDE_LAYERS: dict[Position, str] = {
    "attn": "the end of attention's branch",
    "ffn": "the end of the MLP's branch",
    "block": "the whole block",
}
"""What a position is that is no layer."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A configuration ready to be trained."""

    prepared: Prepared
    request: TrialRequest
    seeds: tuple[int, ...]
    run_name: str
    """Of a run that compares it with others: its method, and where it is not the study's own."""
    title: str

    @property
    def words(self) -> str:
        """What is about to be trained, in one line."""
        return said(resolve(self.request, self.prepared.runtime), self.seeds)

    @property
    def places(self) -> list[list[str]]:
        """A row for every position: its name, what it is in a block, features, number of sites."""
        spec = resolve(self.request, self.prepared.runtime)
        sizes, sites = dims(spec.backbone), [site for site, _ in spec.placement.items()]
        rows = []
        for position in dict.fromkeys(site.position for site in sites):
            own = [site for site in sites if site.position == position]
            what = sizes.layers.get(position) or BESIDE_LAYERS[position]
            d_in, d_out = sizes.linear_io(own[0])
            rows.append([position, what, f"{d_in} -> {d_out}", str(len(own))])
        return rows

    @property
    def size(self) -> str:
        """How many parameters would be trained, in words."""
        peft, width = count_params(resolve(self.request, self.prepared.runtime))
        return f"{peft} PEFT parameters, and a head on {width} features."

    @property
    def label(self) -> str:
        """The method as reports name it."""
        method = get_method(self.request.method)
        return method.label(self.request.method, method.parse_options(self.request.options))

    @property
    def runner(self) -> TrialRunner:
        """What trains requests like this one, as far as the store lacks them."""
        return trial_runner(
            lambda: self.prepared.batch(self.request),
            title=self.title,
            objective=self.prepared.study.objective,
        )

    def say_what_is_not_reused(self) -> None:
        """One sentence if the store has these trials, but only of an earlier `SEMANTICS`."""
        store, runtime = self.prepared.store, self.prepared.runtime
        specs = resolve(self.request, runtime).over_seeds(self.seeds)
        left = [spec for spec in specs if store.state(spec.trial_id) != "done"]
        if note := note_of_older(store, left):
            runtime.console.say(note)

    def run(self) -> list[TrialRecord]:
        """A record per seed, in their order; each has its trained tensors beside it.

        Raises:
            UserError: tensors of a trial that had finished cannot be had again (`driver.again`).
            TrialsFailed: one of them failed.
            Interrupted: the user stopped before the end.
        """
        # Beside the table, which may be read by a program.
        self.prepared.runtime.console.warn(self.words)
        self.say_what_is_not_reused()
        runner = trial_runner(
            lambda: self.prepared.batch(self.request, keep="all"),
            title=self.title,
            objective=self.prepared.study.objective,
        )
        return runner([self.request.model_copy(update={"seed": s}) for s in self.seeds])


def prepare_training(asked: TrainRequest, console: Console) -> Training:
    """Check a configuration for every seed; the store is not touched.

    Raises:
        UserError: it cannot be run, or names something that is not there.
    """
    study, chosen_by = choosing_by(known_study(asked.study), asked.objective)
    if asked.controls and study.further:
        goals = ", ".join(study.objectives)
        raise UserError(f"--controls takes one objective, and {study.name} has {goals}; give one.")
    request = TrialRequest(
        data=study.base.data, backbone=study.base.backbone, recipe=study.base.recipe
    )
    chosen = _chosen(asked)
    seeds = (asked.seed or 0,) if asked.seeds is None else tuple(range(asked.seeds))
    named: dict[str, Any] = {"method": asked.method, "seed": seeds[0]}
    if asked.base:
        if "base" not in get_method(asked.method).Options.model_fields:
            raise UserError(f"--base is for --method metapeft, not for {asked.method}.")
        for field in {"options", "options.base"} & asked.settings.keys():
            raise UserError(
                f"--set {field}={asked.settings[field]} and --base {asked.base}: give one of them."
            )
        named["options.base"] = asked.base
    request = request.with_values({**named, **chosen}, source="command line")
    given = {"method", "seed"} | {FLAGS[field] for field in chosen}
    given |= {flag for flag in ("depth", "alpha") if getattr(asked, flag) is not None}
    for field, value in asked.settings.items():
        if FLAGS.get(field) in given:
            raise UserError(f"--set {field}={value}: that is for --{FLAGS[field]} to say.")
    values, file = with_weights(asked.settings, asked.weights)
    request = request.with_values(values, source="--set")
    refuse_idle(request.recipe, values)
    asked.place.store.refuse_unmakeable(is_dry=asked.place.is_dry)
    refuse_root(asked.place, [request.data.name])
    runtime = make_runtime(asked.place, request.backbone, file, console, keep_weights=True)
    for seed in seeds:
        resolve(request.model_copy(update={"seed": seed}), runtime)
    if "placement" in chosen:
        chosen["placement"] = Path(str(asked.sites)).stem
    words = "_".join([asked.method, asked.base] if asked.base else [asked.method])
    run_name = f"{study.name}+{words}" + variant({**chosen, **values, **chosen_by})
    return Training(
        prepared=Prepared(
            study=study,
            run_name=study.name,
            store=asked.place.store,
            runtime=runtime,
            engine=EngineRequest(workers=asked.workers),
            logs=Logs.of(asked.place.log, run_name, console, is_dry=asked.place.is_dry),
        ),
        request=request,
        seeds=seeds,
        run_name=run_name,
        title=asked.method,
    )


def _chosen(asked: TrainRequest) -> dict[str, Any]:
    """Where and how strongly the method is to act, where that is not left to it."""
    chosen: dict[str, Any] = {}
    if asked.depth not in (None, "all"):
        chosen["depth"] = asked.depth
    if asked.alpha not in (None, 1):
        chosen["alpha"] = asked.alpha
    if asked.sites is not None and asked.sites.endswith(".json"):
        chosen["placement"] = read_placement(Path(asked.sites)).placement.root
    elif asked.sites is not None:
        listed("sites", asked.sites)
        chosen["positions"] = asked.sites
    return chosen
