"""The loop that joins a search to an engine, with its plan, budget and stop."""
