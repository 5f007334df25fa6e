"""PEFT methods, one file per family; `baselines/paper` holds the paper's published numbers."""
