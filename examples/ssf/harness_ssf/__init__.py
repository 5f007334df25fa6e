"""Scaling and shifting features, a method for the harness."""
