"""Sites, placements, and depth expressions: where modules go.

Owns: this vocabulary and its canonical order. Must not know: methods, models, trials.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from pydantic import ConfigDict, RootModel, field_validator

from harness.errors import UserError

LinearPosition = Literal["q", "k", "v", "out", "mlp1", "mlp2"]
SubBlockPosition = Literal["attn", "ffn"]
Position = Literal["q", "k", "v", "qkv", "out", "mlp1", "mlp2", "dw", "attn", "ffn", "block"]
"""`qkv` is the layer that gives q, k and v together, for methods that change layers as wholes.
`dw` is the depthwise convolution of a ConvNeXt block. `block` is the whole block: the site of
methods without a Δ of their own (VPT-deep, BitFit)."""

LINEAR_POSITIONS: tuple[Position, ...] = get_args(LinearPosition)
MAP_POSITIONS: tuple[Position, ...] = (*LINEAR_POSITIONS, "dw")
"""Where a Δ can stand beside a single layer."""
SUB_BLOCK_POSITIONS: tuple[Position, ...] = get_args(SubBlockPosition)
POSITIONS: tuple[Position, ...] = get_args(Position)

DEPTH_FORMS = "all, last:N, first:N, block:L, blocks:A-B (0-based, inclusive)"


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
        if not re.fullmatch("[0-9]{1,6}", block) or position not in POSITIONS:
            raise UserError(f"Bad site {text[:40]!r}: write <block>.<position>, as in '4.mlp1'.")
        return cls(int(block), position)


def parse_depth(text: str, num_blocks: int) -> tuple[int, ...]:
    """Resolve a depth expression to block indices.

    `last:N` is the paper's cumulative depth (Fig. 1c); `blocks:A-B` its groups (Table 3).

    Raises:
        UserError: unknown form, or blocks that a backbone of `num_blocks` does not have.
    """
    given = text[:40]
    wrong = UserError(
        f"Bad depth {given!r} for a backbone of {num_blocks} blocks; write one of: {DEPTH_FORMS}."
    )
    match = re.fullmatch(r"all|(last|first|block):(\d{1,6})|blocks:(\d{1,6})-(\d{1,6})", text)
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
            if key != str(Site.parse(key)):
                raise UserError(f"Bad site {key!r}: write {str(Site.parse(key))!r}.")
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
