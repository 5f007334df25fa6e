"""Studies, one file per question; each defines `study() -> Study` and imports no torch."""
