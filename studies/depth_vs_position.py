"""Position inside the block against depth: 6 x 12 cells, as in Fig. 1(c).

Hypothesis (the paper): the two interact, so the best position and the best depth, each chosen
alone, are not the best pair. Depth N means LoRA in the last N blocks, so deeper also means more
parameters.

    harness sweep --study depth_vs_position

Cost: 5 minutes on 2 CPU cores (72 trials of 5 to 13 s).

Learning rate, batch and crop differ from the released recipe because the benchmark is small. They
were fixed at one cell (mlp1, last:12, seed 0) while the benchmark's difficulty was set, with test
scores in view, and are not tuned per cell: levels are optimistic, and if any cell is favoured, it
is that one.
"""

from harness.spec import DataSpec, Position, Recipe, TrialRequest
from harness.study import Axis, Study, View

POSITIONS: tuple[Position, ...] = ("mlp2", "mlp1", "out", "q", "v", "k")
"""Rows in the paper's order."""


def study() -> Study:
    return Study(
        name="depth_vs_position",
        question="Which position in the block, and in how many last blocks?",
        paper="Fig. 1(c)",
        base=TrialRequest(
            method="lora",
            options={"rank": 4},
            alpha=4.0,
            data=DataSpec(name="synth-rs"),
            recipe=Recipe(epochs=10, batch_size=32, lr=0.2, crop_scale_min=0.9),
        ),
        axes=(
            Axis(field="positions", values=POSITIONS, label="position"),
            Axis(
                field="depth",
                values=tuple(f"last:{n}" for n in range(1, 13)),
                label="depth (last N blocks)",
            ),
        ),
        views=(View(kind="heatmap", rows="positions", columns="depth", title="Position × depth"),),
        fixed="LoRA rank 4, alpha 4, no per-cell tuning",
        reference="fig1c",
        smoke={"positions": ("mlp1", "q"), "depth": ("last:1", "last:12"), "recipe.epochs": (1,)},
    )
