"""A run's files from two places, made one.

Owns: when two folders are of one run, and what it then consists of. Must not know: trials, where
the files come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Texts = Mapping[str, str]
"""Name of a file in a run's folder -> its text."""

OF_THE_PLACE = ("command.json", "environment.json")
"""Files that may differ between two places where the same run was driven."""


class NotOneRun(Exception):
    """Two folders of one name hold different runs; the message says in what they differ."""


def merged(here: Texts, new: Texts) -> dict[str, str]:
    """The files of a run, a part of which is here and a part in an archive.

    A log goes on where it is longer, provided that both begin alike. Grids of other seeds are
    joined, in the order in which one command would have run them.

    Raises:
        NotOneRun: they cannot be joined.
    """
    versions = [_semantics(files) for files in (here, new)]
    if None not in versions and versions[0] != versions[1]:
        raise NotOneRun(
            f"the one here was made under SEMANTICS {versions[0]}, the other under {versions[1]}"
        )
    found = {**new, **here}
    for name in here.keys() & new.keys():
        if here[name] == new[name] or name in OF_THE_PLACE:
            continue
        if name.endswith(".jsonl"):
            found[name] = _longer(name, here[name], new[name])
        elif name == "study.json" and not _has_logs(here) and not _has_logs(new):
            found[name] = _joined_grids(here[name], new[name])
        else:
            raise NotOneRun(f"they differ in {name}")
    own = [name for name in found if name not in OF_THE_PLACE and name in new]
    if all(found[name] == new[name] for name in own) and any(
        found[name] != here.get(name) for name in own
    ):  # the archive has more, so how it was asked for is what counts
        found |= {name: new[name] for name in OF_THE_PLACE if name in new}
    return found


def _semantics(files: Texts) -> str | None:
    """Of the version that made a run; None if it did not say."""
    found = json.loads(files.get("environment.json", "{}")).get("semantics")
    return None if found is None else str(found)


def _has_logs(files: Texts) -> bool:
    return any(name.endswith(".jsonl") for name in files)


def _longer(name: str, here: str, new: str) -> str:
    if new.startswith(here):
        return new
    if here.startswith(new):
        return here
    raise NotOneRun(f"the search asked for other trials: {name} differs before its end")


def _joined_grids(here: str, new: str) -> str:
    one, other = json.loads(here), json.loads(new)
    if {**one["study"], "seeds": 0} != {**other["study"], "seeds": 0}:
        fields = [k for k in one["study"] if one["study"][k] != other["study"].get(k)]
        raise NotOneRun(f"the study differs in {', '.join(f for f in fields if f != 'seeds')}")
    seeds = sorted({*one["study"]["seeds"], *other["study"]["seeds"]})
    cells: dict[str, Any] = {}
    order: dict[str, int] = {}
    for cell in (*one["cells"], *other["cells"]):
        key = json.dumps(cell["cell"], sort_keys=True)
        order.setdefault(key, len(order))
        known = cells.setdefault(json.dumps([key, cell["seed"]]), cell)
        if known["trial_id"] != cell["trial_id"]:
            raise NotOneRun("the same cell is another trial")
    listed = sorted(
        cells.values(),
        key=lambda cell: (
            seeds.index(cell["seed"]),
            order[json.dumps(cell["cell"], sort_keys=True)],
        ),
    )
    study = {**one["study"], "seeds": seeds}
    return json.dumps({"study": study, "cells": listed}, indent=1)
