"""What there is to run: studies by name, and commands that repeat a trial."""
