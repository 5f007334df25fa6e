"""Every group of three blocks by itself, at all positions: on or off, and a strength of its own.

Hypothesis: that of `per_position`, along the depth. The groups are those of the paper's Table 3.

    harness sweep --study per_block_group --search tpe --budget 24

Cost: 4 to 12 s per trial on a CPU core. See `per_site`: the grid runs its cells here too.
"""

from harness.studies.depth_vs_position import POSITIONS
from harness.studies.per_site import study as per_site
from harness.study import Study, Switches


def study() -> Study:
    return per_site().derive(
        name="per_block_group",
        question="Which groups of blocks should be on, and how strong should each be?",
        space=(Switches(positions=POSITIONS, by="blocks", blocks_per_group=3),),
    )
