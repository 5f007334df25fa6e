"""Tuners of Hugging Face peft as methods `hf:NAME`, through peft itself."""

from harness.baselines.hf.method import HuggingFaceTuner

__all__ = ["HuggingFaceTuner"]
