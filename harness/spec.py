"""What a trial is: sites, placements, the recipe and the identity of their combination.

Owns: the vocabulary and `trial_id`. Must not know: how anything is trained, stored or searched.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.errors import UserError, unknown

M = TypeVar("M", bound=BaseModel)

SEMANTICS = 1
"""Raised, with a CHANGELOG line, whenever a code change alters the numbers of an unchanged spec."""

LinearPosition = Literal["q", "k", "v", "out", "mlp1", "mlp2"]
SubBlockPosition = Literal["attn", "ffn"]
Position = Literal["q", "k", "v", "out", "mlp1", "mlp2", "dw", "attn", "ffn", "block"]
"""`dw` is the depthwise convolution of a ConvNeXt block. `block` is the whole block: the site of
methods without a Δ of their own (VPT-deep, BitFit)."""

LINEAR_POSITIONS: tuple[Position, ...] = get_args(LinearPosition)
MAP_POSITIONS: tuple[Position, ...] = (*LINEAR_POSITIONS, "dw")
"""Where a Δ can stand beside a single layer."""
SUB_BLOCK_POSITIONS: tuple[Position, ...] = get_args(SubBlockPosition)
POSITIONS: tuple[Position, ...] = get_args(Position)

DEPTH_FORMS = "all, last:N, first:N, block:L, blocks:A-B (0-based, inclusive)"


class Frozen(BaseModel):
    """Base of every type that is written to disk: immutable, strict, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Site(NamedTuple):
    """One place where a module can go: block index (0-based from the input) and position."""

    block: int
    position: Position

    def __str__(self) -> str:
        return f"{self.block}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read `"4.mlp1"`.

        Raises:
            UserError: the text is not `<block>.<position>`.
        """
        block, _, position = text.partition(".")
        if not block.isdigit() or position not in POSITIONS:
            raise UserError(f"Bad site {text!r}: write <block>.<position>, as in '4.mlp1'.")
        return cls(int(block), position)


def parse_depth(text: str, num_blocks: int) -> tuple[int, ...]:
    """Resolve a depth expression to block indices.

    `last:N` is the paper's cumulative depth (Fig. 1c); `blocks:A-B` its groups (Table 3).

    Raises:
        UserError: unknown form, or blocks that a backbone of `num_blocks` does not have.
    """
    wrong = UserError(
        f"Bad depth {text!r} for a backbone of {num_blocks} blocks; write one of: {DEPTH_FORMS}."
    )
    match = re.fullmatch(r"all|(last|first|block):(\d+)|blocks:(\d+)-(\d+)", text)
    if not match:
        raise wrong
    kind, count, low, high = match.groups()
    if text == "all":
        chosen = range(num_blocks)
    elif kind == "last":
        chosen = range(num_blocks - int(count), num_blocks)
    elif kind == "first":
        chosen = range(int(count))
    elif kind == "block":
        chosen = range(int(count), int(count) + 1)
    else:
        chosen = range(int(low), int(high) + 1)
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_blocks:
        raise wrong
    return tuple(chosen)


class Placement(RootModel[dict[str, float]]):
    """Sites with their strength α, fully resolved and in canonical order: `{"11.mlp1": 4.0}`.

    Empty only for methods that have no sites (linear probe, full fine-tuning, VPT-shallow).
    """

    model_config = ConfigDict(frozen=True)

    @field_validator("root")
    @classmethod
    def _canonical(cls, value: dict[str, float]) -> dict[str, float]:
        for key, alpha in value.items():
            if not math.isfinite(alpha):
                raise UserError(f"Bad alpha {alpha!r} at site {key!r}: it must be finite.")
        order = {position: index for index, position in enumerate(POSITIONS)}
        sites = sorted(
            (Site.parse(key) for key in value), key=lambda s: (s.block, order[s.position])
        )
        return {str(site): value[str(site)] for site in sites}

    @classmethod
    def of(cls, positions: Iterable[Position], blocks: Iterable[int], alpha: float) -> Placement:
        """The product of positions and blocks, one α for all."""
        blocks = tuple(blocks)
        return cls({str(Site(b, p)): float(alpha) for p in positions for b in blocks})

    def items(self) -> Iterator[tuple[Site, float]]:
        return ((Site.parse(key), alpha) for key, alpha in self.root.items())

    def only(self, positions: Iterable[Position]) -> Placement:
        """The part of this placement at these positions."""
        keep = set(positions)
        return Placement({str(s): a for s, a in self.items() if s.position in keep})

    def __len__(self) -> int:
        return len(self.root)


Storage = Literal["fp32", "bf16", "int8"]


class BackboneSpec(Frozen):
    """Which frozen network. `sha256` of its weights is filled in when the trial is resolved."""

    name: str = "vit_pico"
    weights: Literal["pretrained", "random", "file"] = "pretrained"
    """`file`: the local file that `--weights` names. Its hash is part of the trial's identity, its
    path is not."""
    img_size: Annotated[int, Field(gt=0)] | None = None
    in_chans: Annotated[int, Field(ge=1)] = 3
    """Bands of an image; pretrained weights for three are adapted to them."""
    frozen: Storage = "fp32"
    """How frozen weights are stored: bf16 computes in bf16, int8 (weights only) as the recipe."""
    sha256: str | None = None


ADDED_TO_BACKBONE = ("in_chans", "frozen")
"""Fields that are no part of a trial's identity while they have their defaults."""


class DataSpec(Frozen):
    """Which data and how it is split; where the files lie is not part of a trial's identity."""

    name: str = "synth-rs"
    options: dict[str, JsonValue] = {}
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    select_on: Literal["val", "test"] = "val"
    """`test` is the paper's protocol: train on everything, choose on test. Labelled everywhere."""
    sha256: str | None = None
    """Of the packed images, filled in when the trial is resolved; None for data that is drawn."""

    @property
    def chosen_on(self) -> str:
        """The split that choices are made on, in words."""
        return "test" if self.select_on == "test" else "validation"


class Recipe(Frozen):
    """How a trial is trained. Defaults are the released recipe (paper-facts, section 1)."""

    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 128
    lr: Annotated[float, Field(gt=0)] = 0.01
    """At batch 128; the rate used is `lr * sqrt(batch_size / 128)`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    loss: Literal["logit_adjusted", "cross_entropy"] = "logit_adjusted"
    tau: Annotated[float, Field(ge=0)] = 1.0
    head: Literal["cosine", "linear"] = "cosine"
    head_scale: Annotated[float, Field(gt=0)] = 25.0
    head_init: Literal["class_mean", "random"] = "class_mean"
    augment: Literal["crop_flip", "none"] = "crop_flip"
    crop_scale_min: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Smallest area of the random resized crop, as a share of the image."""
    epoch_rule: Literal["last", "best"] = "last"
    """Which epoch is tested: the last, or the best on the selection split."""
    early_stop: bool = False
    """The paper's rule: stop when selection accuracy gained < 0.3 points over 3 epochs."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` becomes bf16 on CUDA and fp32 on CPU when the trial is resolved."""


class Change(Frozen):
    """Strengths and learning rate from a moment in the training on; weights and sites stay."""

    after: Annotated[int, Field(ge=1)]
    """Epochs trained before it."""
    placement: Placement
    lr: Annotated[float, Field(gt=0)]
    """As `Recipe.lr`."""


class TrialSpec(Frozen):
    """Everything that can change a trial's numbers, and nothing that cannot."""

    method: str
    options: dict[str, JsonValue]
    placement: Placement
    backbone: BackboneSpec
    data: DataSpec
    recipe: Recipe
    changes: tuple[Change, ...] = ()
    seed: Annotated[int, Field(ge=0)]

    @functools.cached_property
    def trial_id(self) -> str:
        """16 hex digits of the hash of the canonical JSON and of `SEMANTICS`."""
        return _hash(self._canonical())

    def _canonical(self) -> str:
        spec = self.model_dump(mode="json")
        # So that trials without them are called what they always were.
        if not self.changes:
            del spec["changes"]
        if self.data.sha256 is None:
            del spec["data"]["sha256"]
        for name in ADDED_TO_BACKBONE:
            if getattr(self.backbone, name) == BackboneSpec.model_fields[name].default:
                del spec["backbone"][name]
        content = {"semantics": SEMANTICS, "spec": spec}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def parent(self) -> TrialSpec | None:
        """The trial that this one goes on with after its last change; None without changes."""
        if not self.changes:
            return None
        return self.model_copy(update={"changes": self.changes[:-1]})

    def over_seeds(self, seeds: Sequence[int]) -> list[TrialSpec]:
        """Copies with other seeds, as fast as a sweep of 100,000 trials needs them."""
        # In the canonical JSON the seed stands last, so the ids differ in the text's end alone.
        head, text, tail = self._canonical().rpartition(f'"seed":{self.seed}')
        assert text and tail == "}}"
        copies = []
        for seed in seeds:
            copy = super().model_copy(update={"seed": seed})
            copy.__dict__["trial_id"] = _hash(f'{head}"seed":{seed}{tail}')
            copies.append(copy)
        return copies

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, with an id of its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("trial_id", None)
        return copy


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


CHANGEABLE = ("alpha", "placement", "recipe.lr")
"""Fields of a request that may change while a trial is trained."""


class ChangeRequest(Frozen):
    """Some of the `CHANGEABLE` fields, and after how many epochs they take these values."""

    after: Annotated[int, Field(ge=1)]
    values: dict[str, JsonValue]


class TrialRequest(Frozen):
    """A trial as a person writes it; `trial.resolve` turns it into a `TrialSpec`.

    `positions=None` means the method's own default positions. `alpha` is one strength for all.
    A `placement` names sites and strengths one by one and stands instead of those three.
    """

    method: str = "lora"
    options: dict[str, JsonValue] = {}
    positions: tuple[Position, ...] | None = None
    depth: str = "all"
    alpha: Annotated[float, Field(ge=0)] = 1.0
    placement: Placement | None = None
    backbone: BackboneSpec = BackboneSpec()
    data: DataSpec = DataSpec()
    recipe: Recipe = Recipe()
    changes: tuple[ChangeRequest, ...] = ()
    """In order of time."""
    seed: Annotated[int, Field(ge=0)] = 0

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
        with no options, another backbone so named with all its defaults.

        `source` (a file name, or `--set`) opens the message when a field or value is wrong.

        Raises:
            UserError: unknown field or a value that the field does not take.
        """
        data, named = self.model_dump(mode="json"), {}
        for path, value in values.items():
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
                    raise UserError(f"{source}: {unknown('field', path, _paths(allowed, path))}")
                if depth < len(parents):
                    node = node.setdefault(key, {}) if free_form else node[key]
            if path == "positions" and isinstance(value, str):
                value = value.split(",")
            node[last] = value
        return validated(TrialRequest, data, source=source)


def _paths(node: dict[str, Any], path: str) -> list[str]:
    prefix, _, _ = path.rpartition(".")
    return [f"{prefix}.{key}" if prefix else key for key in node]


def validated(model: type[M], data: object, *, source: str) -> M:
    """Validate plain data, turning pydantic's report into one sentence.

    Raises:
        UserError: names `source`, the field, what was given and what is allowed.
    """
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """One sentence for the first problem: field, value given, what is allowed, nearest match."""
    first = error.errors()[0]
    field = ".".join(part for part in first["loc"] if isinstance(part, str)) or "value"
    given = first["input"]
    context = first.get("ctx", {})
    if isinstance(context.get("error"), UserError):
        return str(context["error"])
    if first["type"] == "extra_forbidden":
        return str(unknown("field", field, _fields_beside(error.title, first["loc"])))
    if first["type"] == "literal_error":
        allowed = [word.strip("'") for word in re.split(r", | or ", str(context["expected"]))]
        return str(unknown(f"value for {field!r}:", str(given), allowed))
    return f"field {field!r} was given {given!r}: {first['msg'].lower()}."


def _fields_beside(title: str, loc: tuple[int | str, ...]) -> list[str]:
    """Dotted names that would have been right where an unknown field was found."""
    model: Any = next((m for m in Frozen.__subclasses__() if m.__name__ == title), None)
    for part in loc[:-1]:
        known = getattr(model, "model_fields", {})
        model = known[part].annotation if part in known else None
    prefix = "".join(f"{part}." for part in loc[:-1])
    return [prefix + name for name in getattr(model, "model_fields", {})]
