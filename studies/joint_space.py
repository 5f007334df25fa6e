"""Position, depth and strength together: 6 x 12 x 12 = 864 cells, the space behind Fig. 1(c, d).

Hypothesis (the paper): the three interact, so they cannot be chosen one after the other, and trying
every cell costs too much. Searches are compared on this space.

    harness sweep --study joint_space                               # every cell
    harness sweep --study joint_space --search tpe --budget 24      # a search

The table that ships has three seeds, and MetaPEFT on each. Searches are judged on it against random
search in closed form, with 500 replays of each in every seed:

    harness sweep --study joint_space --seeds 3
    harness sweep --study joint_space --search metapeft --budget 3
    harness tabulate joint_space joint_space+metapeft --file joint_3.parquet
    harness compare --search all --replay joint_3.parquet --repeats 1500,gp=600

Cost: 40 minutes on 2 CPU cores (864 trials of 4 to 11 s, a third less by kept activations), as much
again for every further seed, and 12 minutes for the replays, most of it GP's, of which there are
fewer. Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.studies.position_vs_alpha import study as position_vs_alpha
from harness.study import Study, View


def study() -> Study:
    depths = depth_vs_position()
    alphas = next(axis for axis in position_vs_alpha().axes if axis.field == "alpha")
    return depths.derive(
        name="joint_space",
        question="Which position, in how many last blocks, and how strongly?",
        paper="Fig. 1(c, d)",
        axes=(*depths.axes, alphas),
        views=(
            View(kind="heatmap", rows="positions", columns="depth", title="Position × depth"),
            View(kind="curves", rows="positions", columns="alpha", title="Position × alpha"),
        ),
        fixed="LoRA rank 4",
        reference=None,
        smoke={
            "positions": ("mlp1", "q"),
            "depth": ("last:1", "last:12"),
            "alpha": (1.0,),
            "recipe.epochs": (1,),
        },
    )
