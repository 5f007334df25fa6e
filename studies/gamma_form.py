"""Whether γ replaces α (Eq. 6) or multiplies it (the paper's Fig. 2), at several α.

Both start at strength α. A step of Adam moves γ by about its learning rate, whatever γ's size. A γ
that replaces a large α therefore changes little in proportion, and one that multiplies it changes
the strength more. At α = 1 the two are the same computation.

    harness sweep --study gamma_form

Cost: 6 minutes on 2 CPU cores (30 trials of 22 to 25 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.k_steps import study as k_steps
from harness.study import Axis, Study, View


def study() -> Study:
    return k_steps().derive(
        name="gamma_form",
        question="Should γ replace α or multiply it?",
        paper="Eq. 6 against Fig. 2",
        axes=(
            Axis(field="options.gamma_form", values=("replace", "times_alpha"), label="form of γ"),
            Axis(field="alpha", values=(0.25, 0.5, 1.0, 2.0, 4.0), label="alpha"),
        ),
        views=(
            View(kind="curves", rows="options.gamma_form", columns="alpha", title="Form of γ × α"),
        ),
        fixed="MetaPEFT on LoRA rank 4, all 72 sites",
        smoke={"alpha": (1.0, 4.0), "recipe.epochs": (1,)},
    )
