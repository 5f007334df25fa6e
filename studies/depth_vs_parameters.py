"""The last N blocks at equal parameters: rank 12/N, so that depth is not size.

Hypothesis (ours): part of "deeper is better" in Fig. 1(c) only means "more parameters", because
there the last N blocks have N times the parameters of one. Here N × rank is 12 in every cell, and
the factor before BA is 1 at every rank, as it is in `depth_vs_position` at rank 4 and alpha 4.

    harness sweep --study depth_vs_parameters

Cost: 2 minutes on 2 CPU cores (36 trials of 5 to 12 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study, View

TOTAL = 12
"""Blocks times rank."""


def study() -> Study:
    base = depth_vs_position()
    positions = base.axes[0]
    depths = [blocks for blocks in range(1, 13) if TOTAL % blocks == 0]
    return base.derive(
        name="depth_vs_parameters",
        question="Is deeper better when the number of parameters stays the same?",
        paper="Fig. 1(c), at equal parameters",
        base=base.base.with_values(
            {"alpha": 1.0, "options.scale": "alpha"}, source="depth_vs_parameters"
        ),
        axes=(
            positions,
            Axis.named(
                "blocks_and_rank",
                "last N blocks : rank",
                {
                    f"{blocks}:{TOTAL // blocks}": {
                        "depth": f"last:{blocks}",
                        "options.rank": TOTAL // blocks,
                    }
                    for blocks in depths
                },
            ),
        ),
        views=(
            View(
                kind="heatmap",
                rows="positions",
                columns="blocks_and_rank",
                title="Position × depth, equal parameters",
            ),
        ),
        fixed="LoRA, N × rank = 12, factor 1 before BA, no per-cell tuning",
        reference=None,
        smoke={
            "positions": ("mlp1",),
            "blocks_and_rank": ("1:12", "12:1"),
            "recipe.epochs": (1,),
        },
    )
