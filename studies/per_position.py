"""Every position by itself, in all blocks: on or off, and a strength of its own where it is on.

Hypothesis: with one strength per position instead of one per site, a search needs far fewer trials
and loses little.

    harness sweep --study per_position --search tpe --budget 24

Cost: 4 to 12 s per trial on a CPU core. See `per_site`: the grid runs its cells here too.
"""

from harness.studies.depth_vs_position import POSITIONS
from harness.studies.per_site import study as per_site
from harness.study import Study, Switches


def study() -> Study:
    return per_site().derive(
        name="per_position",
        question="Which positions should be on in all blocks, and how strong should each be?",
        space=(Switches(positions=POSITIONS, by="position"),),
    )
