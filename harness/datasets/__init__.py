"""Datasets, one file each: a class with `Options`, `summary` and `load(options) -> Dataset`."""
