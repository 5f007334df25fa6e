"""How fast γ may move: Adam's learning rate from 0.003 to 0.3.

Hypothesis (ours): a step of Adam moves γ by about its learning rate, so in some 75 outer steps a
rate of 0.01 cannot reach a strength far from the start, even if that would be best. The paper says
that the rate varies by dataset and backbone, and prints none.

    harness sweep --study outer_lr

Cost: 3 minutes on 2 CPU cores (15 trials of 23 to 25 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Points, Study


def study() -> Study:
    return k_steps().derive(
        name="outer_lr",
        question="How fast must γ move to find the strengths that help?",
        paper="none (it varies, and is not printed)",
        axes=(
            Axis(
                field="options.outer_lr",
                values=(0.003, 0.01, 0.03, 0.1, 0.3),
                label="outer learning rate",
            ),
        ),
        views=(Points(rows="options.outer_lr", title="Learning rate of γ"),),
        smoke={"options.outer_lr": (0.01, 0.3), "recipe.epochs": (1,)},
    )
