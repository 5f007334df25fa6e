"""How many inner steps MetaPEFT takes per outer step: K = 1, 2, 3, 5, 10.

Hypothesis: with fewer inner steps γ gets more steps of its own, at a higher cost; the paper prints
no K.
LoRA with one γ per site, at all six positions of all 12 blocks. The other MetaPEFT studies are
derived from this one.

    harness sweep --study k_steps

Cost: 3 minutes on 2 CPU cores (15 trials of 20 to 38 s). Recipe: see `depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Points, Study


def study() -> Study:
    sites = depth_vs_position()
    return sites.derive(
        name="k_steps",
        question="How many inner steps should stand between two outer steps?",
        paper="none (K is not printed)",
        base=sites.base.with_values(
            {"method": "metapeft", "options": {}, "alpha": 1.0}, source="k_steps"
        ),
        axes=(Axis(field="options.inner_steps", values=(1, 2, 3, 5, 10), label="inner steps K"),),
        seeds=(0, 1, 2),
        views=(Points(rows="options.inner_steps", title="Inner steps K"),),
        fixed="MetaPEFT on LoRA rank 4, all 72 sites, γ from 1",
        reference=None,
        smoke={"options.inner_steps": (1, 3), "recipe.epochs": (1,)},
    )
