"""How a method joins a frozen model."""
