"""PEFT hyperparameter-search harness: one runner, many searches, one store, honest reports."""

__version__ = "0.1.0"
