"""How strongly the outer problem penalises γ: λ = 0, 5e-5, 5e-4, 5e-3.

Hypothesis (ours): a step of Adam moves γ by about its learning rate, whatever the gradient's size,
so even a tiny λ shrinks every site whose own gradient is smaller still, and at full speed. Then the
penalty decides what is selected, not how much a site helps. The paper says "L2" and prints no λ.

    harness sweep --study gamma_l2

Cost: 2 minutes on 2 CPU cores (12 trials of 22 to 23 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Points, Study


def study() -> Study:
    return k_steps().derive(
        name="gamma_l2",
        question="Is it the L2 penalty that selects?",
        paper="none (no weight is printed)",
        axes=(Axis(field="options.l2", values=(0.0, 5e-5, 5e-4, 5e-3), label="L2 weight λ"),),
        views=(Points(rows="options.l2", title="L2 penalty on γ"),),
        smoke={"options.l2": (0.0, 5e-3), "recipe.epochs": (1,)},
    )
