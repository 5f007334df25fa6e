"""Every site by itself: on or off, and a strength of its own where it is on (72 sites, Eq. 5).

The mixed-integer problem that the paper starts from. Its points cannot be listed: the grid runs
those where every site has the same strength, and searches range over the whole space.

    harness sweep --study per_site                                  # the same strength everywhere
    harness sweep --study per_site --search tpe --budget 24         # the whole space
    harness sweep --study per_site --search metapeft                # γ, in one run

Cost: 8 to 12 s per trial on a CPU core. Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import POSITIONS
from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Points, Study, Switches


def study() -> Study:
    base = depth_vs_position()
    return base.derive(
        name="per_site",
        question="Which of the 72 sites should be on, and how strong should each be?",
        paper="Eq. 5",
        base=base.base.with_values({"positions": ",".join(POSITIONS)}, source="per_site"),
        axes=(
            Axis(
                field="alpha",
                values=tuple(2.0**e for e in range(-4, 5)),
                label="alpha of every site",
            ),
        ),
        space=(Switches(positions=POSITIONS),),
        views=(Points(rows="alpha", title="One strength for all sites"),),
        fixed="LoRA rank 4",
        reference=None,
        smoke={"alpha": (1.0, 4.0), "recipe.epochs": (1,)},
    )
