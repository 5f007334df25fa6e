"""Options that several commands have, and how their examples are written.

Owns: each such option's flag, default and help. Must not know: what is made of its value.
"""

from __future__ import annotations

from typing import Any

import click

MOST_SEEDS = 10_000
"""Of a command: far more than anyone trains, and few enough to be listed."""


def examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  harness {line}" for line in lines)


out_option = click.option(
    "--out", default="runs", show_default=True, help="Folder of the store and the reports."
)
device_option = click.option(
    "--device", help="cpu, cuda or cuda:N.  [default: cuda if there is one]"
)
data_root_option = click.option(
    "--data-root",
    type=click.Path(),
    metavar="FOLDER",
    help="Where the files of a dataset lie; see `harness data check NAME`.",
)
bad_image_option = click.option(
    "--on-bad-image",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="An image that cannot be read: stop, or leave it out and say so.",
)
objective_option = click.option(
    "--objective",
    metavar="NAME[,NAME]",
    help="What choices are made by, on the selection split: class_mean, group_mean, flat_mean, "
    "micro, tail or val_loss; two or three for random, tpe and nsga2, which also take "
    "trainable_params and inference_flops.  [default: study's, class_mean]",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Trials at once.  [default: 1 per core/GPU]"
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change any field of the trial, e.g. recipe.epochs=5; repeatable.",
)
only_option = click.option(
    "--only",
    multiple=True,
    metavar="AXIS=V[,V]",
    help="Of an axis of the study, only these values, e.g. positions=q,v; repeatable.",
)
weights_option = click.option(
    "--weights",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Local weights of the backbone: safetensors, or torch's; keys of timm, MAE, DINO, CLIP, "
    "transformers.",
)


log_option = click.option(
    "--log",
    multiple=True,
    metavar="TOOL[:WHERE]",
    help="Also write trials, while they run, to tensorboard:FOLDER, mlflow:URI or wandb[:PROJECT]; "
    "repeatable.",
)


def trial_options(command: Any) -> Any:
    """The options that every command which runs trials ends with."""
    in_help = (
        set_option,
        weights_option,
        data_root_option,
        bad_image_option,
        device_option,
        log_option,
        out_option,
    )
    for option in reversed(in_help):  # click puts the last one first
        command = option(command)
    return command
