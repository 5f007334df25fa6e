"""LoRA's rank against its strength, in all blocks at Q and V.

Hypothesis (the paper, with other data and alphas): at an alpha of 4, rank 1 collapses to chance and
rank 32 does not.

    harness sweep --study rank_vs_alpha

Cost: 4 minutes on 2 CPU cores (36 trials of 13 to 15 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study, View


def study() -> Study:
    base = depth_vs_position()
    return base.derive(
        name="rank_vs_alpha",
        question="Which rank goes with which strength?",
        paper="Fig. S2",
        base=base.base.with_values({"positions": "q,v"}, source="rank_vs_alpha"),
        axes=(
            Axis(field="options.rank", values=(1, 2, 4, 8, 16, 32), label="rank"),
            Axis(field="alpha", values=tuple(4.0**e for e in range(-2, 4)), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="options.rank", columns="alpha", title="Rank × alpha"),),
        fixed="LoRA at Q and V in all 12 blocks",
        reference=None,
        smoke={"options.rank": (1, 4), "alpha": (1.0, 4.0), "recipe.epochs": (1,)},
    )
