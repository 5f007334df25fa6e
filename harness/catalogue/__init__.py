"""What there is to run: studies by name, and the commands that run a trial again."""
