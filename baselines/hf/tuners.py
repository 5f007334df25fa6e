"""The tuners of Hugging Face peft that are methods here: one row each.

Owns: which options a tuner has, what they are called in peft, and how many parameters follow from
them. Must not know: peft's code, which is imported where a tuner is attached; models; training.

Every default is peft's own. α multiplies what a tuner changes, y = f(x) + α·(T(x) - f(x)). Where
the change is proportional to a setting of peft's own that means the same (`lora_alpha`), that is 1
here and α takes its place; where peft has another scale beside, it is at peft's default when α = 1.

Shapes: i inputs and o outputs of the layer at a site, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from harness.errors import UserError
from harness.spec import SUB_BLOCK_POSITIONS, Count, Frozen, Position, Seed, Site

LAYERS: tuple[Position, ...] = ("qkv", "out", "mlp1", "mlp2")
"""Linear layers as peft sees them: of a fused q, k and v it sees one."""
REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts of LoRA that take what the modules begin with off the frozen weights."""


def _frozen_weights_stay(value: object) -> object:
    if isinstance(value, str) and value.lower().startswith(REWRITING):
        raise UserError(
            f"options.init_lora_weights: {value!r} rewrites the frozen weights at the start, and "
            "all trials share those; take true or 'gaussian'."
        )
    return value


Start = Annotated[Literal[True, "gaussian"], BeforeValidator(_frozen_weights_stay)]
Share = Annotated[float, Field(ge=0, lt=1)]
Sizes = Callable[[Site, int, int, Any], int]
"""Takes a site, i, o and the options."""


class Option:
    """One option: its type and default, and what peft calls it."""

    def __init__(self, kind: Any, default: object, peft: str | None = None) -> None:
        self.kind, self.default, self.peft = kind, default, peft


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """One tuner: a configuration of peft's, and what is known of it without peft."""

    name: str
    config: str
    """Of peft's classes."""
    summary: str
    count: Sizes
    """Trainable elements at a site.

    Raises:
        UserError: the options do not fit the layer.
    """
    options: Mapping[str, Option] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    """Fields of the configuration that are no options."""
    scale: str | None = None
    """The field of the configuration that the change is proportional to."""
    scale_by_site: bool = False
    """That field can differ by layer (`alpha_pattern`)."""
    positions: tuple[Position, ...] = LAYERS
    default_positions: tuple[Position, ...] = ("qkv",)

    def make_options(self) -> type[Frozen]:
        """The type of its options."""
        fields: dict[str, Any] = {n: (o.kind, o.default) for n, o in self.options.items()}
        return create_model(f"{self.config}Options", __base__=Frozen, **fields)

    def fields(self, options: Frozen) -> dict[str, object]:
        """The configuration's fields, but for those that name layers."""
        given = {o.peft or name: getattr(options, name) for name, o in self.options.items()}
        return {**self.settings, **given}


def factors(size: int, near: int) -> tuple[int, int]:
    """`size` as a product as LoKr does it: of numbers near its root, or of `near` and the rest."""
    if near > 0 and size % near == 0:
        return near, size // near
    most = size if near == -1 else near
    low, high = 1, size
    while low < high:
        next_low = low + 1
        while size % next_low:
            next_low += 1
        if next_low + size // next_low > low + high or next_low > most:
            break
        low, high = next_low, size // next_low
    return min(low, high), max(low, high)


def _lokr(site: Site, i: int, o: int, options: Any) -> int:
    """Two factors of a Kronecker product, each whole or of rank r."""
    r, near = options.rank, options.decompose_factor
    if near == 0 or near < -1:
        raise UserError(f"options.decompose_factor={near}: write -1, or a number above 0.")
    (i_low, i_high), (o_low, o_high) = factors(i, near), factors(o, near)
    first_is_low = options.decompose_both and r < max(o_low, i_low) / 2
    second_is_low = r < max(o_high, i_high) / 2
    first = r * (o_low + i_low) if first_is_low else o_low * i_low
    return first + (r * (o_high + i_high) if second_is_low else o_high * i_high)


def _blocks(name: str, site: Site, i: int, size: int) -> int:
    """Into how many blocks of a size the inputs are divided."""
    if i % size:
        raise UserError(f"options.{name}={size} does not divide the {i} inputs of {site}.")
    return i // size


def _oft(site: Site, i: int, o: int, options: Any) -> int:
    size = options.oft_block_size
    blocks = _blocks("oft_block_size", site, i, size)
    return (1 if options.block_share else blocks) * int(size * (size - 1) // 2)


def _boft(site: Site, i: int, o: int, options: Any) -> int:
    size: int = options.boft_block_size
    return _blocks("boft_block_size", site, i, size) * size**2 + o


def _hra(site: Site, i: int, o: int, options: Any) -> int:
    if options.rank % 2:
        raise UserError(
            f"options.rank={options.rank}: HRA starts at the frozen layer only where its "
            "reflections come in pairs; take an even number."
        )
    return int(i * options.rank)


def _miss(site: Site, i: int, o: int, options: Any) -> int:
    if options.rank > i:
        raise UserError(f"options.rank={options.rank} is more than the {i} inputs of {site}.")
    return int(options.rank * o)


def _randlora(site: Site, i: int, o: int, options: Any) -> int:
    bases = math.ceil(min(i, o) / options.rank)
    return int(bases * (options.rank + min(i, o)))


def _fourierft(site: Site, i: int, o: int, options: Any) -> int:
    if options.n_frequency > i * o:
        raise UserError(
            f"options.n_frequency={options.n_frequency} is more than the {i * o} weights of {site}."
        )
    return int(options.n_frequency)


def _adalora(site: Site, i: int, o: int, options: Any) -> int:
    if options.target_r >= options.init_r:
        raise UserError(
            f"options.target_r={options.target_r}: AdaLoRA takes ranks away, so it must be below "
            f"init_r={options.init_r}."
        )
    if options.tinit + options.tfinal >= 1:
        raise UserError("options.tinit and options.tfinal leave no steps in which ranks change.")
    return int(options.init_r * (i + o + 1))


LORA = {
    "rank": Option(Count, 8, "r"),
    "use_rslora": Option(bool, False),
    "init_lora_weights": Option(Start, True),
}
TUNERS = (
    Tuner(
        name="lora",
        config="LoraConfig",
        summary="peft's LoRA; at out, mlp1 and mlp2 what lora is",
        count=lambda site, i, o, options: options.rank * (i + o),
        options=LORA,
        settings={"lora_alpha": 1},
        scale="lora_alpha",
        scale_by_site=True,
    ),
    Tuner(
        name="dora",
        config="LoraConfig",
        summary="DoRA of peft: LoRA with a trained magnitude for each output",
        count=lambda site, i, o, options: options.rank * (i + o) + o,
        options={**LORA, "lora_alpha": Option(Count, 8)},
        settings={"use_dora": True},
    ),
    Tuner(
        name="adalora",
        config="AdaLoraConfig",
        summary="AdaLoRA of peft: ranks move between sites while it trains",
        count=_adalora,
        options={
            "init_r": Option(Count, 12),
            "target_r": Option(Count, 8),
            # peft counts these two in steps, whose number nobody knows before the data is there.
            "tinit": Option(Share, 0.0),
            "tfinal": Option(Share, 0.0),
            "deltaT": Option(Count, 1),
            "beta1": Option(Annotated[float, Field(gt=0, lt=1)], 0.85),
            "beta2": Option(Annotated[float, Field(gt=0, lt=1)], 0.85),
        },
        settings={"lora_alpha": 1},
        scale="lora_alpha",
    ),
    Tuner(
        name="ia3",
        config="IA3Config",
        summary="(IA)3 of peft: a factor for each output, at mlp2 for each input",
        count=lambda site, i, o, options: i if site.position == "mlp2" else o,
        default_positions=("qkv", "mlp2"),
    ),
    Tuner(
        name="loha",
        config="LoHaConfig",
        summary="LoHa of peft: the elementwise product of two low-rank updates",
        count=lambda site, i, o, options: 2 * options.rank * (i + o),
        options={"rank": Option(Count, 8, "r")},
        settings={"alpha": 1},
        scale="alpha",
        scale_by_site=True,
    ),
    Tuner(
        name="lokr",
        config="LoKrConfig",
        summary="LoKr of peft: an update that is a Kronecker product",
        count=_lokr,
        options={
            "rank": Option(Count, 8, "r"),
            "decompose_both": Option(bool, False),
            "decompose_factor": Option(int, -1),
        },
        settings={"alpha": 1},
        scale="alpha",
        scale_by_site=True,
    ),
    Tuner(
        name="oft",
        config="OFTConfig",
        summary="OFT of peft: rotates the inputs in blocks",
        count=_oft,
        options={
            "oft_block_size": Option(Annotated[int, Field(ge=2)], 32),
            "block_share": Option(bool, False),
            "use_cayley_neumann": Option(bool, True),
        },
    ),
    Tuner(
        name="boft",
        config="BOFTConfig",
        summary="BOFT of peft, of one factor: rotates inputs, scales outputs",
        count=_boft,
        options={"boft_block_size": Option(Annotated[int, Field(ge=2)], 4)},
    ),
    Tuner(
        name="hra",
        config="HRAConfig",
        summary="HRA of peft: reflects the inputs, in pairs",
        count=_hra,
        options={"rank": Option(Count, 8, "r")},
    ),
    Tuner(
        name="vera",
        config="VeraConfig",
        summary="VeRA of peft: factors on random projections that all sites share",
        count=lambda site, i, o, options: options.rank + o,
        options={
            "rank": Option(Count, 256, "r"),
            "d_initial": Option(float, 0.1),
            "projection_prng_key": Option(Seed, 0),
        },
    ),
    Tuner(
        name="ln_tuning",
        config="LNTuningConfig",
        summary="LN tuning of peft: the LayerNorms that branches begin with",
        count=lambda site, i, o, options: 2 * i,
        positions=SUB_BLOCK_POSITIONS,
        default_positions=SUB_BLOCK_POSITIONS,
    ),
    Tuner(
        name="miss",
        config="MissConfig",
        summary="MiSS of peft: one block for all parts of the inputs",
        count=_miss,
        options={"rank": Option(Count, 64, "r")},
    ),
    Tuner(
        name="randlora",
        config="RandLoraConfig",
        summary="RandLoRA of peft: a full-rank sum of random bases that all sites share",
        count=_randlora,
        options={
            "rank": Option(Count, 32, "r"),
            "projection_prng_key": Option(Seed, 0),
        },
        scale="randlora_alpha",
    ),
    Tuner(
        name="fourierft",
        config="FourierFTConfig",
        summary="FourierFT of peft; it does not start at zero, unless init_weights=true",
        count=_fourierft,
        options={
            "n_frequency": Option(Count, 1000),
            "random_loc_seed": Option(Seed, 777),
            "init_weights": Option(bool, False),
        },
        scale="scaling",
    ),
)
