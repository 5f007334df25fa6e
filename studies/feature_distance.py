"""How far apart the classes lie in the features that each method trains, as in Table 5, Fig. 1(b).

Hypothesis (the paper): additive methods with learned strengths separate tail classes best. The
paper does not define its distance (ours is in the caption), and its table and figure differ by up
to 0.06.

    harness sweep --study feature_distance

Cost: nothing after `methods`, whose 27 trials these are. Recipe: see there.
"""

from harness.studies.methods import study as methods
from harness.study import Points, Study


def study() -> Study:
    return methods().derive(
        name="feature_distance",
        question="Which method separates the classes best, and are tails as far apart as heads?",
        paper="Table 5 and Fig. 1(b)",
        views=(
            Points(rows="variant", title="Distance between classes, by group", value="distance"),
        ),
        reference=("table5", "fig1b"),
        smoke={"variant": ("BitFit", "LoRA"), "recipe.epochs": (1,)},
    )
