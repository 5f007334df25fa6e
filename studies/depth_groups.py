"""Three blocks at a time: 0-2, 3-5, 6-8, 9-11, as in Table 3.

Hypothesis (the paper): the deepest group is the worst and the group 3-5 the best, and tail classes
lose most. (In its table they lose least: 1.0 points against 4.3 of head classes.) All groups have
equally many parameters, so only their place differs. The paper does not name the positions; here
all six are used.

    harness sweep --study depth_groups

Cost: 1 minute on 2 CPU cores (12 trials of 8 to 12 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import POSITIONS
from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Points, Study


def study() -> Study:
    base = depth_vs_position()
    return base.derive(
        name="depth_groups",
        question="Which three blocks in a row?",
        paper="Table 3",
        base=base.base.with_values({"positions": ",".join(POSITIONS)}, source="depth_groups"),
        axes=(
            Axis(
                field="depth",
                values=("blocks:0-2", "blocks:3-5", "blocks:6-8", "blocks:9-11"),
                label="blocks",
            ),
        ),
        seeds=(0, 1, 2),
        views=(Points(rows="depth", title="Groups of three blocks"),),
        fixed="LoRA rank 4, alpha 4, all six positions",
        reference="table3",
        smoke={"depth": ("blocks:0-2", "blocks:9-11"), "recipe.epochs": (1,)},
    )
