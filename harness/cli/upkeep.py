"""For those who work on the harness: its embedded backbone made again."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import examples, file_option


@click.command(
    epilog=examples(
        "pretrain --file vit_pico.safetensors", "pretrain --file x.safetensors --seed 1"
    )
)
@file_option
@click.option("--seed", type=int, default=0, show_default=True)
def pretrain(path: str, seed: int) -> None:
    """Train the embedded backbone vit_pico on the SYNTHETIC source domain and save its weights."""
    from harness.training.pretrain import pretrain_pico

    accuracy = pretrain_pico(Path(path), seed=seed, log=click.echo)
    click.echo(f"Saved {path}; accuracy on unseen source images {100 * accuracy:.1f} %.")
