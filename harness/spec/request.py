"""A trial as a person writes it.

Owns: requests and how their fields are set by dotted names. Must not know: how one is resolved.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, JsonValue, model_validator

from harness.errors import UserError, unknown
from harness.spec.base import Count, Frozen, Seed, validated
from harness.spec.recipe import RECIPES, Recipe
from harness.spec.sites import Placement, Position
from harness.spec.trial import BackboneSpec, DataSpec, nothing_held_out

CHANGEABLE = ("alpha", "placement", "recipe.lr")
"""Fields of a request that may change while a trial is trained."""


class ChangeRequest(Frozen):
    """Some of the `CHANGEABLE` fields, and after how many epochs they take these values."""

    after: Count
    values: dict[str, JsonValue]


class TrialRequest(Frozen):
    """A trial as a person writes it; `runner.resolve` turns it into a `TrialSpec`.

    `positions=None` means the method's own default positions. `alpha` is one strength for all.
    A `placement` names sites and strengths one by one; it replaces positions, depth and alpha.
    """

    method: str = "lora"
    options: dict[str, JsonValue] = Field(default={})
    positions: tuple[Position, ...] | None = None
    depth: str = "all"
    alpha: Annotated[float, Field(ge=0)] = 1.0
    placement: Placement | None = None
    backbone: BackboneSpec = BackboneSpec()
    data: DataSpec = DataSpec()
    recipe: Recipe = Recipe()
    changes: tuple[ChangeRequest, ...] = ()
    """In the order in which they are made."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _sites_are_named_once(self) -> Self:
        if self.positions == ():
            raise UserError("Empty positions: name at least one, or leave it out.")
        if self.placement is not None and (self.positions, self.depth, self.alpha) != (
            None,
            "all",
            1.0,
        ):
            raise UserError("A placement has its own sites and alphas: leave out the other three.")
        return self

    def with_values(self, values: dict[str, Any], *, source: str) -> TrialRequest:
        """Copy with dotted fields replaced, e.g. `{"recipe.lr": 0.05, "positions": "mlp1"}`.

        `{"data": "mstar"}` stands for its name, and `backbone` likewise. Another dataset starts
        with no options, another backbone so named with all its defaults. `{"recipe": "deit"}` puts
        one of `RECIPES` in the place of the whole recipe, before its fields are replaced.

        `source` (a file name, or `--set`) opens the message when a field or value is wrong.

        Raises:
            UserError: unknown field or a value that the field does not take.
        """
        data, named = self.model_dump(mode="json"), {}
        for path, value in values.items():
            if path == "recipe" and isinstance(value, str):
                if value not in RECIPES:
                    raise UserError(f"{source}: {unknown('recipe', value, RECIPES)}")
                data[path] = RECIPES[value].model_dump(mode="json")
                continue
            is_name = path in ("data", "backbone") and isinstance(value, str)
            if is_name and path == "backbone":
                data[path] = BackboneSpec().model_dump(mode="json")
            named[f"{path}.name" if is_name else path] = value
        if named.get("data.name", self.data.name) != self.data.name:
            data["data"]["options"] = {}
        for path, value in named.items():
            *parents, last = path.split(".")
            node = data
            for depth, key in enumerate([*parents, last]):
                free_form = "options" in parents[:depth]
                if not isinstance(node, dict) or (key not in node and not free_form):
                    allowed = node if isinstance(node, dict) else {}
                    raise UserError(
                        f"{source}: {unknown('field', path, _paths(allowed, parents[:depth]))}"
                    )
                if depth < len(parents):
                    node = node.setdefault(key, {}) if free_form else node[key]
            if path == "positions" and isinstance(value, str):
                value = value.split(",")
            node[last] = value
        made = validated(TrialRequest, data, source=source)
        if "data.val_fraction" in named and made.data.dev_per_class:  # its default too
            raise nothing_held_out(made.data.val_fraction)
        return made


def _paths(node: dict[str, Any], parents: list[str]) -> list[str]:
    return [".".join([*parents, key]) for key in node]
