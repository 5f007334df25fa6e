"""Studies, one file per question; each defines `study() -> Study` and imports no torch."""

if __name__ != "harness.studies":
    raise ImportError(
        f"Write harness.{__name__}: this folder is imported by that name only.", name=__name__
    )
