"""Putting PEFT modules into a frozen timm backbone and taking them out again.

Modules join by hooks on timm's own layers, so the backbone's module tree, weights and state dict
stay what they were and one loaded backbone serves every trial of a worker. Owns: sites -> hooks,
the `PeftMethod` contract, combinations `a+b`. Must not know: a method's name, data, training.

Shapes: n images, t tokens, d width, r rank. Tokens may lie in a window or a map, and then have
more than one dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, JsonValue, ValidationError, create_model

from harness.errors import UserError
from harness.insertion.attachment import Attachment, Union
from harness.model.blocks import Backbone, Dims
from harness.registry import METHODS
from harness.spec import Frozen, Placement, Position, explain


class PeftMethod(ABC):
    """A way to adapt a frozen backbone: a class in `baselines/` under `METHODS.register`."""

    Options: ClassVar[type[Frozen]]
    """The method's own settings, with their defaults."""
    positions: ClassVar[tuple[Position, ...]]
    """Positions it can be placed at; empty for a method without sites."""
    default_positions: ClassVar[tuple[Position, ...]]
    additive: ClassVar[bool]
    """It adds `α·Δ` (Eq. 2), so α has a meaning and it can be combined with others."""
    adds_tokens: ClassVar[bool] = False
    """It lengthens the sequence, so the backbone must pass one through all its blocks."""
    wraps: ClassVar[bool] = False
    """It trains another method and learns its strengths, so it cannot be a part of `a+b`."""
    summary: ClassVar[str]
    """One line for `harness list methods`."""

    @abstractmethod
    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        """Insert the modules; draws their initial values from (`seed`, purpose, site) alone."""

    @abstractmethod
    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        """Number of trainable elements, head excluded, by the formula of paper-facts section 2."""

    def label(self, name: str, options: Any) -> str:
        """`name`, with a word for what a reader must know of these options."""
        return name

    def unwrapped(self, options: Any) -> tuple[str, dict[str, JsonValue]]:
        """Name and options of the base, in a method that `wraps` one."""
        raise NotImplementedError

    def positions_with(self, options: Any) -> tuple[Position, ...]:
        """Positions it can be placed at under these options."""
        return self.positions

    def default_positions_with(self, options: Any) -> tuple[Position, ...]:
        """Positions it takes where none are asked for."""
        return self.default_positions

    def positions_on(self, dims: Dims, options: Any) -> tuple[Position, ...]:
        """Those of them that the backbone has."""
        return tuple(p for p in self.positions_with(options) if p in dims.positions)

    def default_positions_on(self, dims: Dims, options: Any) -> tuple[Position, ...]:
        """Positions it takes on the backbone where none are asked for."""
        return tuple(p for p in self.default_positions_with(options) if p in dims.positions)

    def parse_options(self, options: dict[str, JsonValue]) -> BaseModel:
        """Check and complete the options.

        Raises:
            UserError: unknown option or bad value.
        """
        try:
            return self.Options.model_validate(options)
        except ValidationError as error:
            raise UserError(f"options: {explain(error)}") from error


class Combination(PeftMethod):
    """`a+b`: each site goes to every part that supports its position; all parts must get one."""

    additive = True

    def __init__(self, names: list[str]) -> None:
        self._parts: dict[str, PeftMethod] = {name: METHODS.get(name)() for name in names}
        for name, part in self._parts.items():
            if not part.additive:
                raise UserError(f"Method {name!r} adds no module, so it cannot be combined.")
            if part.wraps:
                raise UserError(
                    f"Method {name!r} is no part of a sum: give it the sum as its base."
                )
        if len(self._parts) < len(names):
            raise UserError(f"Method {'+'.join(names)!r} names a part twice.")
        fields: dict[str, Any] = {n: (p.Options, p.Options()) for n, p in self._parts.items()}
        options: Any = create_model("CombinedOptions", __base__=Frozen, **fields)
        self.Options = options  # type: ignore[misc]
        ordered = [q for p in self._parts.values() for q in p.positions]
        self.positions = tuple(dict.fromkeys(ordered))  # type: ignore[misc]
        default = [q for p in self._parts.values() for q in p.default_positions]
        self.default_positions = tuple(dict.fromkeys(default))  # type: ignore[misc]

    def attach(
        self, model: Backbone, placement: Placement, options: Any, *, seed: int
    ) -> Attachment:
        parts = {
            name: part.attach(
                model, self._share(name, placement), getattr(options, name), seed=seed
            )
            for name, part in self._parts.items()
        }
        return Union(model, parts)

    def expected_params(self, dims: Dims, placement: Placement, options: Any) -> int:
        return sum(
            part.expected_params(dims, self._share(name, placement), getattr(options, name))
            for name, part in self._parts.items()
        )

    def _share(self, name: str, placement: Placement) -> Placement:
        share = placement.only(self._parts[name].positions)
        if not len(share):
            wanted = ", ".join(self._parts[name].positions)
            raise UserError(f"No site is left for {name!r}: add one of its positions ({wanted}).")
        return share


def get_method(name: str) -> PeftMethod:
    """The method called `name`; `a+b` combines additive ones.

    Raises:
        UserError: unknown name, or a combination that makes no sense.
    """
    names = name.split("+")
    if len(names) > 1:
        return Combination(names)
    method: PeftMethod = METHODS.get(name)()
    return method
