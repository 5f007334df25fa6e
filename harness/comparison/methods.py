"""Every method against every other at equal cost of tuning, on the same seeds.

Owns: which arms `harness compare --methods` has, and the run's folder. Must not know: where trials
run, how results are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from harness.comparison.arms import ArmsBuilder
from harness.comparison.baseline import LABEL, baseline
from harness.driver.batch import TrialRunner, trial_runner
from harness.driver.said import said
from harness.driver.setup import Prepared
from harness.errors import UserError, unknown
from harness.insertion.method import METHODS, get_method
from harness.model.backbones import dims
from harness.runner.provenance import provenance
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.spec import TrialRequest
from harness.store.comparisons import Comparison
from harness.store.liveness import driving
from harness.store.run_folder import RunFolder
from harness.store.runs import Command, refuse_older, write_command, write_comparison
from harness.store.store import Store
from harness.study.study import Study

RATES = (1 / 32, 1 / 8, 1 / 2, 1.0, 2.0, 8.0)
"""Learning rates that every arm chooses from, as multiples of the recipe's: a factor of four apart,
and the recipe's own, which is that of arms of one run."""
FURTHER = 4
"""Rates tried beyond them, a factor of four each, by a seed of an arm whose best is at an end: full
fine-tuning needs a small one, a few parameters a large one. It is charged for them."""
LEARNER = "metapeft"
"""What learns the strengths of every additive method, where no method that does is named."""
SEEDS = 3
"""How many where no other number is asked for."""
REFERENCE = "lora"
"""The first arm, with which the others are compared."""


def compared_methods(names: str) -> list[str]:
    """The methods that `all` or a list `a,b` stands for, the reference first.

    Those that need an extra of this package, or that learn the strengths of another, are compared
    where they are named.

    Raises:
        UserError: an unknown method, or fewer than two.
    """
    methods = METHODS.working()
    plain = [name for name, method in methods.items() if method.in_all and not method.wraps]
    chosen = plain if names == "all" else list(dict.fromkeys(names.split(",")))
    for name in chosen:
        if name not in methods and "+" not in name:
            raise unknown("method to compare:", name, ["all", *methods])
        get_method(name)  # of a combination every part is looked at
    if len(chosen) < 2:
        raise UserError("--methods: name at least two methods, or all.")
    return sorted(chosen, key=lambda name: name != REFERENCE)


def run_methods(prepared: Prepared, names: str, seeds: int | None, line: str) -> RunFolder:
    """Compare methods on seeds 0 to `seeds`, exclusive, by default 3; the run's folder.

    `names` are as in `compared_methods`; `line` is the command line that asks for the same.

    Raises:
        UserError: an unknown method, fewer than two, or another process drives the run.
        TrialsFailed: a trial failed, so that nothing is compared.
        Interrupted: the user stopped before the end.
    """
    study, runtime = prepared.study, prepared.runtime
    chosen = compared_methods(names)
    words = "methods" if names == "all" else f"methods={'_'.join(chosen)}"
    folder = RunFolder.of(prepared.store, f"{prepared.run_name}+{words}")
    refuse_older(folder)
    trained = tuple(range(seeds or SEEDS))
    varied = {"method": "method", "recipe.lr": "learning rate"}
    runtime.console.say(said(resolve(study.base, runtime), trained, varied))
    with driving(folder.driver_mark):
        compared = compare_methods(
            chosen,
            study=study,
            seeds=trained,
            run=trial_runner(prepared.batch, title="methods", objective=study.objective),
            store=prepared.store,
            runtime=runtime,
        )
        write_comparison(folder, compared, provenance(runtime.device))
        plan = (
            f"Every seed of every arm at {len(RATES)} learning rates, and at up to {FURTHER} more "
            "where its best is the first or the last."
        )
        write_command(folder, Command(line, plan))
    return folder


def compare_methods(
    names: Sequence[str],
    *,
    study: Study,
    seeds: tuple[int, ...],
    run: TrialRunner,
    store: Store,
    runtime: Runtime,
) -> Comparison:
    """Train each method at its own sites, an additive one at all its sites too and with MetaPEFT.

    Where a method that learns strengths is named, it is compared over its own base alone. The
    baseline of every comparison stands beside them with its rate tuned, and in one run at the
    recipe's; so does the best cell of the study's sweep, if it is in the store.
    """
    base = TrialRequest(
        data=study.base.data, backbone=study.base.backbone, recipe=study.base.recipe
    )
    requests, pairs = _requests(names, base)
    arms = ArmsBuilder(
        seeds=seeds,
        study=study,
        run=run,
        store=store,
        runtime=runtime,
        rates=RATES,
        further=FURTHER,
    )
    standing = baseline(base, {})
    arms.add_tuned({}, {**requests, LABEL: standing})
    named = dict(zip([*requests, LABEL], (arm.name for arm in arms.arms), strict=True))
    arms.add_tuned({f"{LABEL}, one run": standing}, {})
    arms.add_best_cell(base)
    return Comparison(
        title=f"Methods on {study.base.data.name}",
        request=base,
        seeds=seeds,
        objective=study.objective,
        chosen="per seed",
        unit=arms.arms[0].name,
        inner_steps=None,
        reference="table4",
        arms=tuple(arms.arms),
        pairs=tuple((named[learned], named[plain]) for learned, plain in pairs.items()),
        notes=tuple(arms.notes),
    )


def _requests(
    names: Sequence[str], base: TrialRequest
) -> tuple[dict[str, TrialRequest], dict[str, str]]:
    """Label -> request of every arm at the recipe's rate; learned strengths -> their plain arm."""
    sizes = dims(base.backbone)
    learners = {_base_of(name): name for name in names if get_method(name).wraps}
    requests: dict[str, TrialRequest] = {}
    pairs: dict[str, str] = {}

    def learn(over: str) -> str:
        learner = learners.get(over, LEARNER)
        label = f"{over} with {'MetaPEFT' if learner == LEARNER else learner}"
        changes: dict[str, JsonValue] = {"method": learner, "options.base": over}
        requests[label] = base.with_values(changes, source=label)
        return label

    for name in names:
        method = get_method(name)
        if method.wraps:
            if _base_of(name) not in names:
                learn(_base_of(name))
            continue
        options = method.parse_options({})
        own = base.model_copy(update={"method": name})
        label = _label(name, method.default_positions_on(sizes, options))
        requests[label] = own
        if not method.additive:
            continue
        positions = method.positions_on(sizes, options)
        if set(positions) != set(method.default_positions_on(sizes, options)):
            label = _label(name, ("all positions",))
            requests[label] = own.model_copy(update={"positions": positions})
        if name in learners or not learners:
            pairs[learn(name)] = label
    return requests, pairs


def _base_of(name: str) -> str:
    method = get_method(name)
    return method.unwrapped(method.parse_options({}))[0]


def _label(name: str, positions: Sequence[str]) -> str:
    return f"{name}, {'+'.join(positions)}" if positions and positions != ("block",) else name
