"""Position inside the block against the strength alpha: 6 x 12 cells, as in Fig. 1(d).

Hypothesis (the paper): accuracy rises with alpha, then collapses to chance, and where it collapses
depends on the position. LoRA is in all blocks.

    harness sweep --study position_vs_alpha

Cost: 7 minutes on 2 CPU cores (72 trials of 10 to 15 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import POSITIONS
from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study, View


def study() -> Study:
    return depth_vs_position().derive(
        name="position_vs_alpha",
        question="How strong may the modules be at each position before training collapses?",
        paper="Fig. 1(d)",
        axes=(
            Axis(field="positions", values=POSITIONS, label="position"),
            Axis(field="alpha", values=tuple(2.0**e for e in range(-4, 8)), label="alpha"),
        ),
        views=(View(kind="curves", rows="positions", columns="alpha", title="Position × alpha"),),
        fixed="LoRA rank 4 in all 12 blocks, no per-cell tuning",
        reference="fig1d",
        smoke={"positions": ("mlp1", "q"), "alpha": (1.0, 128.0), "recipe.epochs": (1,)},
    )
