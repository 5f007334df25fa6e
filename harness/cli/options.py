"""Options that several commands have, and how their examples are written.

Owns: each such option's flag, default and help. Must not know: what is made of its value.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from harness.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  harness {line}" for line in lines)


class Place(click.Path):
    """A path as the shell would have it, which leaves `--out=~/x` as it is."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """The path with its `~` replaced. Raises `UserError` if it is empty."""
        if value == "":
            named = "" if param is None else param.opts[0]
            raise UserError(f"{named} is empty: name a place, or leave it out.")
        return super().convert(os.path.expanduser(value), param, ctx)


out_option = click.option(
    "--out",
    type=Place(),
    metavar="FOLDER",
    default="runs",
    show_default=True,
    help="Folder of the store and the reports.",
)
file_option = click.option(
    "--file",
    "path",
    required=True,
    type=Place(dir_okay=False),
    help="To write.",
)
device_option = click.option(
    "--device", help="cpu, cuda or cuda:N.  [default: cuda if there is one]"
)
data_root_option = click.option(
    "--data-root",
    type=Place(),
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


def _run_study_file(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
    """Run a study file, for what it registers."""
    if path is not None and not context.resilient_parsing:
        from harness.catalogue.studies import load_study

        if not path.endswith(".py"):
            raise UserError(
                f"--study {path}: what ships is known without it; name a file, or none."
            )
        load_study(path)
    return path


def study_file_option(*, is_passed_on: bool = False) -> Callable[[F], F]:
    """For commands that need no study: its file is run before them, for what it registers."""
    return click.option(
        "--study",
        metavar="FILE",
        callback=_run_study_file,
        expose_value=is_passed_on,
        help="A study file that registers what is named here and neither ships nor is installed.",
    )


workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Trials at once.  [default: 1 per core/GPU]"
)


def settings_option(changes: str) -> Callable[[F], F]:
    """`--set`, with words on what it changes."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="FIELD=VALUE",
        help=f"Change {changes}; repeatable.",
    )


set_option = settings_option("any field of the trial, e.g. recipe.epochs=5")
only_option = click.option(
    "--only",
    multiple=True,
    metavar="AXIS=V[,V]",
    help="Of an axis of the study, only these values, e.g. positions=q,v; repeatable.",
)
weights_option = click.option(
    "--weights",
    type=Place(dir_okay=False),
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
