"""Methods and searches compared at equal cost."""
