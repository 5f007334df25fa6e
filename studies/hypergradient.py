"""Whether the outer gradient's approximation matters: first order against four that include dφ/dγ.

Hypothesis: the paper states none. Its Eq. 9 is first order, and what that leaves out is not
discussed.

    harness sweep --study hypergradient

Cost: 6 minutes on 2 CPU cores (15 trials of 23 to 77 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Points, Study


def study() -> Study:
    return k_steps().derive(
        name="hypergradient",
        question="Does it matter how the gradient passes through the inner steps?",
        paper="none (Eq. 9 is first order)",
        axes=(
            Axis(
                field="options.hypergradient",
                values=("first_order", "darts_fd", "unrolled:1", "unrolled:3", "neumann:3"),
                label="hypergradient",
            ),
        ),
        views=(Points(rows="options.hypergradient", title="Hypergradient"),),
        smoke={"options.hypergradient": ("first_order", "unrolled:1"), "recipe.epochs": (1,)},
    )
