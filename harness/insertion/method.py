"""What a PEFT method is, and the registry of all of them.

Modules join by hooks on timm's own layers, so the backbone's module tree, weights and state dict
stay what they were, and one loaded backbone serves every trial of a worker. Owns: the `PeftMethod`
contract, and methods by name, combinations `a+b` included. Must not know: any method's name, data,
training.

Shapes: n images, t tokens, d width, r rank. Tokens may lie in a window or a map, and then have
more than one dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import JsonValue, ValidationError, create_model

from harness.errors import UserError
from harness.insertion.attachment import Attachment, Union
from harness.model.blocks import Backbone, Dims
from harness.registry import Registry, unlike
from harness.spec import Frozen, Placement, Position, Recipe, TrialSpec, explain

OptionsT = TypeVar("OptionsT", bound=Frozen)


class PeftMethod(ABC, Generic[OptionsT]):
    """A way to adapt a frozen backbone.

    A class in `baselines/` or in a study file under `METHODS.register`, or an installed package's
    entry point in the group `harness.methods`.
    """

    Options: type[OptionsT]
    """The method's own settings, with their defaults."""
    positions: tuple[Position, ...]
    """Positions it can be placed at; empty for a method without sites."""
    default_positions: tuple[Position, ...]
    additive: ClassVar[bool]
    """It adds `α·Δ` (Eq. 2), so α has a meaning and it can be combined with others."""
    adds_tokens: ClassVar[bool] = False
    """It lengthens the sequence, so the backbone must pass one through all its blocks."""
    wraps: ClassVar[bool] = False
    """It trains another method and learns its strengths, so it cannot be a part of `a+b`."""
    in_all: ClassVar[bool] = True
    """`harness compare --methods all` has it; others are compared where they are named."""
    summary: ClassVar[str]
    """One line for `harness list methods`."""

    @abstractmethod
    def attach(
        self, model: Backbone, placement: Placement, options: OptionsT, *, seed: int
    ) -> Attachment:
        """Insert the modules. Their initial values depend on (`seed`, purpose, site) alone."""

    @abstractmethod
    def expected_params(self, dims: Dims, placement: Placement, options: OptionsT) -> int:
        """Number of trainable elements by a formula, head excluded; Table S2 has the paper's.

        Raises:
            UserError: the method makes no sense at these sites.
        """

    def check_recipe(self, recipe: Recipe, options: OptionsT) -> None:
        """Refuse a recipe that makes no sense with these options.

        Raises:
            UserError: names the field, and what may stand there instead.
        """

    def needs_fp32(self, options: OptionsT) -> bool:
        """Whether it trains the backbone's weights, or computes with them, so that they must be
        stored whole."""
        return False

    def unlike_plain_sgd(self, options: OptionsT) -> str | None:
        """An option by which its steps are not those of SGD at one rate on a fixed function.

        Strengths cannot be learned through such steps. None if there is none.
        """
        return None

    def label(self, name: str, options: OptionsT) -> str:
        """`name`, with a word for what a reader must know of these options."""
        return name

    def unwrapped(self, options: OptionsT) -> tuple[str, dict[str, JsonValue]]:
        """Name and options of the base, in a method that `wraps` one."""
        raise NotImplementedError

    def ranks(self, options: OptionsT) -> bool:
        """Whether what it learns only ranks the sites, so that it makes no strengths of them."""
        return False

    def rankings(self) -> dict[str, tuple[dict[str, JsonValue], dict[str, JsonValue]]]:
        """Searches that rank the sites by a trial in which nothing is trained, and then train the
        better half: name -> options of such a trial beside its base's, and its other fields."""
        return {}

    def controls(self, options: OptionsT) -> list[dict[str, JsonValue]]:
        """Other options of a method that `wraps` one, against which these are to be judged."""
        return []

    def positions_with(self, options: OptionsT) -> tuple[Position, ...]:
        """Positions it can be placed at under these options."""
        return self.positions

    def default_positions_with(self, options: OptionsT) -> tuple[Position, ...]:
        """Positions it takes where none are asked for."""
        return self.default_positions

    def positions_on(self, dims: Dims, options: OptionsT) -> tuple[Position, ...]:
        """Those of them that the backbone has."""
        return tuple(p for p in self.positions_with(options) if p in dims.positions)

    def default_positions_on(self, dims: Dims, options: OptionsT) -> tuple[Position, ...]:
        """Positions it takes on the backbone where none are asked for."""
        return tuple(p for p in self.default_positions_with(options) if p in dims.positions)

    def parse_options(self, options: dict[str, JsonValue]) -> OptionsT:
        """Check and complete the options.

        Raises:
            UserError: unknown option or bad value.
        """
        try:
            return self.Options.model_validate(options)
        except ValidationError as error:
            raise UserError(f"options: {explain(error, self.Options)}") from error


METHODS: Registry[type[PeftMethod[Any]]] = Registry(
    "method",
    "harness.baselines",
    group="harness.methods",
    misfit=lambda entry: unlike(entry, Frozen, PeftMethod),
)


def get_method(name: str) -> PeftMethod[Any]:
    """The method called `name`; `a+b` combines additive ones.

    Raises:
        UserError: unknown name, or a combination that makes no sense.
    """
    names = name.split("+")
    return Combination(names) if len(names) > 1 else METHODS.get(name)()


def attach(model: Backbone, spec: TrialSpec) -> Attachment:
    """Attach a trial's method to a frozen model, at its sites and from its seed (`PeftMethod`)."""
    method = get_method(spec.method)
    return method.attach(model, spec.placement, method.parse_options(spec.options), seed=spec.seed)


class Combination(PeftMethod[Frozen]):
    """`a+b`: each site goes to every part that supports its position; all parts must get one."""

    additive = True

    def __init__(self, names: list[str]) -> None:
        self._parts = {name: METHODS.get(name)() for name in names}
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
        self.Options = create_model("CombinedOptions", __base__=Frozen, **fields)
        ordered = [q for p in self._parts.values() for q in p.positions]
        self.positions = tuple(dict.fromkeys(ordered))
        default = [q for p in self._parts.values() for q in p.default_positions]
        self.default_positions = tuple(dict.fromkeys(default))

    def attach(
        self, model: Backbone, placement: Placement, options: Frozen, *, seed: int
    ) -> Attachment:
        own = dict(options)
        parts = {
            name: part.attach(model, self._share(name, placement), own[name], seed=seed)
            for name, part in self._parts.items()
        }
        return Union(model, parts)

    def expected_params(self, dims: Dims, placement: Placement, options: Frozen) -> int:
        own = dict(options)
        return sum(
            part.expected_params(dims, self._share(name, placement), own[name])
            for name, part in self._parts.items()
        )

    def check_recipe(self, recipe: Recipe, options: Frozen) -> None:
        own = dict(options)
        for name, part in self._parts.items():
            part.check_recipe(recipe, own[name])

    def needs_fp32(self, options: Frozen) -> bool:
        own = dict(options)
        return any(part.needs_fp32(own[name]) for name, part in self._parts.items())

    def unlike_plain_sgd(self, options: Frozen) -> str | None:
        own = dict(options)
        found = ((n, part.unlike_plain_sgd(own[n])) for n, part in self._parts.items())
        return next((f"{name}.{option}" for name, option in found if option), None)

    def _share(self, name: str, placement: Placement) -> Placement:
        share = placement.only(self._parts[name].positions)
        if not len(share):
            wanted = ", ".join(self._parts[name].positions)
            raise UserError(f"No site is left for {name!r}: add one of its positions ({wanted}).")
        return share
