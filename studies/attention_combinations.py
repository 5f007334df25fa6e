"""Which attention positions together, in all blocks, as in Table S4.

Hypothesis (the paper): more attention positions help little beyond Q and V. Our copy of the table
does not show the third position of its second row, so both candidates are run.

    harness sweep --study attention_combinations

Cost: 1 minute on 2 CPU cores (12 trials of 13 to 14 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.position_groups import study as position_groups
from harness.study import Axis, Points, Study


def study() -> Study:
    return position_groups().derive(
        name="attention_combinations",
        question="Which attention positions together?",
        paper="Table S4",
        axes=(
            Axis.named(
                "variant",
                "positions",
                {
                    "Q + V": {"positions": "q,v"},
                    "Q + K + V": {"positions": "q,k,v"},
                    "Q + V + Out": {"positions": "q,v,out"},
                    "Q + K + V + Out": {"positions": "q,k,v,out"},
                },
            ),
        ),
        views=(Points(rows="variant", title="Attention positions"),),
        reference="table_s4",
        smoke={"variant": ("Q + V", "Q + K + V + Out"), "recipe.epochs": (1,)},
    )
