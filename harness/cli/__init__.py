"""The command line, which joins studies, searches, engines, the store and reports.

A module for every family of commands. They import torch, optuna, ray and pandas inside commands
only, so that `--help` answers at once. Owns: the program `harness`. Must not know: what its
commands do.
"""

from __future__ import annotations

from typing import Any

import click

from harness.cli import (
    archives,
    bench,
    compare,
    data,
    exports,
    lists,
    recommend,
    results,
    runs,
    sweep,
    train,
    upkeep,
)
from harness.cli.options import examples
from harness.cli.terminal import ENDED, ending_when_told, exit_code_of
from harness.errors import Interrupted, names_for
from harness.version import __version__


class _Group(click.Group):
    """Turns a user's mistake into one sentence and an exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        with ending_when_told() as told:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                ctx.exit(exit_code_of(Interrupted(ENDED)))
            except click.NoSuchOption as error:
                raise _with_the_field(error) from error
            except Exception as error:
                # An import that was cut off raises whatever it likes.
                ctx.exit(exit_code_of(Interrupted(ENDED) if told.is_set() else error))


def _with_the_field(error: click.NoSuchOption) -> click.NoSuchOption:
    """The error for a flag such as `--epochs`, with the field that is meant, where one can be set.

    Fields have no flags of their own: `--set` reaches them all.
    """
    fields = [name for name in names_for(error.option_name.lstrip("-")) if "." in name]
    command = None if error.ctx is None else error.ctx.command
    can_set = command is not None and any("--set" in each.opts for each in command.params)
    if not fields or not can_set:
        return error
    words = f"{error.message} Write --set {fields[0]}=VALUE."
    return click.NoSuchOption(error.option_name, words, ctx=error.ctx)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "recommend --data folder --data-root my_images",
        "sweep --study depth_vs_position",
        "train --method lora --sites mlp1 --depth last:8 --alpha 4",
        "list studies",
    ),
)
@click.version_option(__version__)
def main() -> None:
    """Where, how deep and how strongly to insert PEFT modules in a vision transformer.

    Every command reads and writes one store (--out): a trial that has finished is never run again,
    and any command that was interrupted continues when it is given again.
    """


for command in (
    recommend.recommend,
    sweep.sweep,
    train.train,
    compare.compare,
    *(exports.export, exports.predict),
    *(results.derive, results.tabulate, results.status, results.report),
    *(archives.archive, archives.import_, archives.verify),
    runs.runs,
    lists.list_,
    data.data,
    *(upkeep.pretrain, bench.bench),
):
    main.add_command(command)
