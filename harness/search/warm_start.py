"""Configurations that an earlier run has scored, for a search that starts from them.

Owns: which trials of the other run count, and their scores. Must not know: which search uses them.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import UserError
from harness.metrics import Objective
from harness.spec import TrialSpec
from harness.store.records import DONE
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run
from harness.store.summaries import summaries
from harness.study.space import Params, SearchSpace, Values, cell_key


def known_points(
    folder: RunFolder,
    space: SearchSpace,
    make: Callable[[Values, int], TrialSpec],
    objective: Objective,
) -> list[tuple[Params, float]]:
    """Configurations of a space that another run has finished, with their mean score over seeds.

    `objective` is the selection score that is meant, better when higher; a diverged trial scores
    chance. Pruned and failed trials do not count.

    Raises:
        UserError: there are none, for instance because the other run had another space, data,
            backbone or recipe.
    """
    scores: dict[str, tuple[Params, list[float]]] = {}
    run = read_run(folder).asked
    ended = summaries(folder.store, {asked.trial_id for asked in run})
    for asked in run:
        params = space.params(asked.cell)
        if params is None or make(asked.cell, asked.seed).trial_id != asked.trial_id:
            continue
        summary = ended.get(asked.trial_id)
        if summary is not None and summary.status in DONE:
            key = cell_key(params)
            scores.setdefault(key, (params, []))[1].append(summary.objective(objective))
    if not scores:
        raise UserError(
            f"--warm-start {folder.name}: none of its finished trials is one of this space, with "
            "the same data, backbone and recipe."
        )
    return [(params, sum(found) / len(found)) for params, found in scores.values()]
