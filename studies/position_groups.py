"""Attention positions, FFN positions, or all six, in all blocks, as in Table 1.

Hypothesis (the paper): all positions together are best on average, and by most on tail classes. Its
table does not say which modules or strengths were used; its rows for iNaturalist and Places-LT are
those of Tables S4 and S5 with the names exchanged (`harness report --paper`).

    harness sweep --study position_groups

Cost: 1 minute on 2 CPU cores (9 trials of 12 to 20 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Points, Study


def study() -> Study:
    return depth_vs_position().derive(
        name="position_groups",
        question="Attention positions, FFN positions, or both?",
        paper="Table 1",
        axes=(
            Axis.named(
                "variant",
                "positions",
                {
                    "ATTN": {"positions": "q,k,v,out"},
                    "FFN": {"positions": "mlp1,mlp2"},
                    "ATTN + FFN": {"positions": "q,k,v,out,mlp1,mlp2"},
                },
            ),
        ),
        seeds=(0, 1, 2),
        views=(Points(rows="variant", title="Groups of positions"),),
        fixed="LoRA rank 4, alpha 4, all 12 blocks",
        reference="table1",
        smoke={"variant": ("ATTN", "FFN"), "recipe.epochs": (1,)},
    )
