"""Datasets, one file each: a `FileDataset` (on disk) or a `DrawnDataset`, which registers itself.

Owns: names, official sources, classes and splits of datasets. Must not know: decoding, packs,
models.
"""
