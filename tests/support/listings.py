"""Listings of named datasets, and the files that they read."""

from __future__ import annotations

from harness.data.contract import DATASETS
from harness.spec import validated


def listing(name, root, **options):
    dataset = DATASETS.get(name)
    return dataset.listing(validated(dataset.Options, options, source=f"data {name}"), root)


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


def group_sizes(found):
    return {name: len(members) for name, members in found.groups.items()}
