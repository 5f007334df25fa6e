"""What was typed, as the requests of `harness.driver.request` have it.

Owns: how settings are typed, and how a run remembers what was typed. Must not know: what a command
does with it.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import click

from harness.errors import LONGEST_GIVEN, UserError

if TYPE_CHECKING:
    from harness.driver.request import PlaceRequest

NEARLY_A_NUMBER = re.compile(
    r"[+-]?(\.\d+|\d+\.)(e[+-]?\d+)?|\+\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE
)
"""What Python reads as a number and JSON does not; as a word it would be refused for its type."""
NAMED = ("data", "backbone")
"""Fields for which a word stands for their name."""


def parse_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`a.b=v` pairs; v is read as JSON where it is JSON, else as a word."""
    values: dict[str, Any] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write FIELD=VALUE, as in recipe.lr=0.02.")
        value = _read(field, text)
        if isinstance(value, str) and NEARLY_A_NUMBER.fullmatch(value):
            raise UserError(
                f"--set {pair[:LONGEST_GIVEN]}: write a number as JSON has it, as in 0.1 or 2."
            )
        for other, known in values.items():
            if _meet(field, value, other, known):
                raise UserError(
                    f"--set {pair[:LONGEST_GIVEN]} and --set {f'{other}={known}'[:LONGEST_GIVEN]}: "
                    "give one of them."
                )
        values[field] = value
    return values


def _meet(one: str, value: Any, other: str, known: Any) -> bool:
    """Whether two settings are of one field, or one of a part of what the other sets whole.

    A name, as in `data=folder`, leaves the parts beside it open, all but `data.name`.
    """
    whole, of_whole, part = (one, value, other) if len(one) < len(other) else (other, known, one)
    is_its_name = whole in NAMED and part == f"{whole}.name"
    is_inside = isinstance(of_whole, dict) and part.startswith(f"{whole}.")
    return whole == part or is_its_name or is_inside


def _read(field: str, text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _object(field, pairs))
    except UserError:  # which is a ValueError, too
        raise
    except (ValueError, RecursionError):  # no JSON, or none that Python reads
        value = text
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"--set {field}: its value has characters that are no text.") from error
    return value


def _object(field: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which would take the last of a key's values without a word."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise UserError(f"--set {field}: its value has {key} twice; give it once.")
        values[key] = value
    return values


def parse_jobs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=v` pairs of what a job of a cluster asks for; v is a number where it is one."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise UserError(f"--slurm {pair}: write NAME=VALUE, as in partition=gpu.")
        if name in values:
            raise UserError(f"--slurm {name} is given twice: give it once.")
        values[name] = _read(name, text)
    return values


def parse_only(pairs: tuple[str, ...]) -> dict[str, str]:
    """`axis=values` pairs."""
    values: dict[str, str] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        if not equals or not text:
            raise UserError(f"--only {pair}: write AXIS=VALUE, as in positions=q,v.")
        if field in values:
            raise UserError(f"--only {pair} and --only {field}={values[field]}: give one of them.")
        values[field] = text
    return values


def place_given(
    out: str,
    data_root: str | None,
    on_bad_image: str,
    device: str | None,
    log: tuple[str, ...] = (),
) -> PlaceRequest:
    """The options that every command which runs trials ends with."""
    from harness.driver.request import PlaceRequest

    return PlaceRequest(
        out=out,
        data_root=data_root,
        on_bad_image=on_bad_image,  # type: ignore[arg-type]
        device=device,
        log=log,
    )


def typed_command() -> str:
    """The command that is being run, without what cannot change a number.

    Where files lie is left open: `--data-root FOLDER`, in the words of `--help`.
    """
    from harness.driver.request import NO_IDENTITY, PLACES

    context = click.get_current_context()
    words = ["harness", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in NO_IDENTITY or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = PLACES.get(name, context.params[name])
        for each in value if isinstance(value, tuple) else (value,):
            words.append(parameter.opts[-1])
            # Neither a flag, nor an option whose value was left out.
            if each is not True and each != getattr(parameter, "flag_value", None):
                words.append(str(each))
    return shlex.join(words)
