"""Position inside the block against depth: 6 x 12 cells, as in Fig. 1(c).

Hypothesis (the paper): the two interact, and the best position alone at the best depth alone is
not the best pair. Depth N means LoRA in the last N blocks, so deeper also means more parameters.

    harness sweep --study depth_vs_position
"""

from harness.spec import DataSpec, Recipe, TrialRequest
from harness.study import Axis, Study, View

POSITIONS = ("mlp2", "mlp1", "out", "q", "v", "k")
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
            recipe=Recipe(epochs=10, batch_size=32, lr=0.05, crop_scale_min=0.6),
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
        fixed="LoRA rank 4, alpha 4",
        reference="fig1c",
        smoke={"positions": ("mlp1", "q"), "depth": ("last:1", "last:12"), "recipe.epochs": (1,)},
    )
