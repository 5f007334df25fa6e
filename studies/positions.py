"""Which single position, in all blocks: K, Q, V, Out, MLP1, MLP2, as in Tables 2 and S3.

Hypothesis (the paper): FFN positions beat attention positions, on every dataset. (Its own numbers
say less: MLP2 ties with V in Table 2, and Q and K are best on the tail classes of Places-LT in
Table S3.) LoRA at a d × 4d map has 2.5 times the parameters of LoRA at a d × d map; the second
table shows them.

    harness sweep --study positions

Cost: 2 minutes on 2 CPU cores (18 trials of 11 to 14 s; seed 0 is shared with `depth_vs_position`
at depth 12). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Points, Study


def study() -> Study:
    return depth_vs_position().derive(
        name="positions",
        question="Which position, if there is one for all blocks?",
        paper="Tables 2 and S3",
        axes=(
            Axis(
                field="positions",
                values=("k", "q", "v", "out", "mlp1", "mlp2"),
                label="position",
            ),
        ),
        seeds=(0, 1, 2),
        views=(Points(rows="positions", title="Position, all blocks"),),
        fixed="LoRA rank 4, alpha 4, all 12 blocks",
        reference=("table2", "table_s3"),
        smoke={"positions": ("mlp1", "q"), "recipe.epochs": (1,)},
    )
