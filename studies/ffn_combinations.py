"""MLP1, MLP2, or both, in all blocks, as in Table S5.

Hypothesis (the paper): both together are better than either.

    harness sweep --study ffn_combinations

Cost: 1 minute on 2 CPU cores (9 trials of 11 to 14 s; 6 are shared with `positions`, 3 with
`position_groups`). Recipe: see `depth_vs_position`.
"""

from harness.studies.position_groups import study as position_groups
from harness.study import Axis, Points, Study


def study() -> Study:
    return position_groups().derive(
        name="ffn_combinations",
        question="Which of the two FFN maps, or both?",
        paper="Table S5",
        axes=(
            Axis.named(
                "variant",
                "positions",
                {
                    "MLP1": {"positions": "mlp1"},
                    "MLP2": {"positions": "mlp2"},
                    "MLP1 + MLP2": {"positions": "mlp1,mlp2"},
                },
            ),
        ),
        views=(Points(rows="variant", title="FFN positions"),),
        reference="table_s5",
        smoke={"variant": ("MLP1", "MLP1 + MLP2"), "recipe.epochs": (1,)},
    )
