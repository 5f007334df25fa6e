"""Which classes D_val favours (Table S1): none, small ones until all are equal, or beyond that.

Hypothesis (the paper): tail-heavy sampling gains on tail classes and loses on head classes. Table
S1's fourth row, random at 30 %, is a cell of `sampling_ratio`.

    harness sweep --study sampling_strategy

Cost: 2 minutes on 2 CPU cores (9 trials of 23 to 24 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Points, Study


def study() -> Study:
    return k_steps().derive(
        name="sampling_strategy",
        question="Which classes should the outer problem see most?",
        paper="Table S1",
        axes=(
            Axis(
                field="options.sampling",
                values=("random", "class_balanced", "tail_heavy"),
                label="sampling of D_val",
            ),
        ),
        views=(Points(rows="options.sampling", title="Sampling strategy of D_val"),),
        reference="table_s1",
        smoke={"options.sampling": ("random", "tail_heavy"), "recipe.epochs": (1,)},
    )
