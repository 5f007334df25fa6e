"""How much of the training data each D_val takes: 5, 10, 20, 30, 50 %, as in Table 6.

Hypothesis (the paper): accuracy rises up to 30 % and falls slightly at 50 %, and tail classes gain
most. An outer step uses one batch of D_val, so the ratio sets how many images it is drawn from.

    harness sweep --study sampling_ratio

Cost: 3 minutes on 2 CPU cores (15 trials of 23 to 25 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Points, Study


def study() -> Study:
    return k_steps().derive(
        name="sampling_ratio",
        question="How much of the training data should the outer problem see at a time?",
        paper="Table 6",
        axes=(
            Axis(field="options.ratio", values=(0.05, 0.1, 0.2, 0.3, 0.5), label="sampling ratio"),
        ),
        views=(Points(rows="options.ratio", title="Sampling ratio of D_val"),),
        reference="table6",
        smoke={"options.ratio": (0.05, 0.5), "recipe.epochs": (1,)},
    )
