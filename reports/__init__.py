"""Reports: `numbers` computes tables, `text` says, `figures` draws, `files` writes."""

if __name__ != "harness.reports":
    raise ImportError(
        f"Write harness.{__name__}: this folder is imported by that name only.", name=__name__
    )
