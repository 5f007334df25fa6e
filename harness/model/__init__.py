"""Backbones, their blocks, heads and weights."""
