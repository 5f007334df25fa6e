"""PEFT methods, one file per family; `baselines/paper` holds the paper's published numbers."""

if __name__ != "harness.baselines":
    raise ImportError(
        f"Write harness.{__name__}: this folder is imported by that name only.", name=__name__
    )
