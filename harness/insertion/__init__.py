"""How a method is inserted into a frozen model."""
