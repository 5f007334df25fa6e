"""Does scaling features do what low-rank updates do, with a fraction of their parameters?

Hypothesis: on a domain this far from pre-training SSF is behind LoRA at the same sites, and least
so where strengths are small.

    harness sweep --study ssf_vs_lora.py

Cost: about 8 minutes on 2 CPU cores (48 trials).
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study, View


def study() -> Study:
    base = depth_vs_position()
    everywhere = {"positions": ("mlp1", "mlp2"), "depth": "all", "options": {}}
    return base.derive(
        name="ssf_vs_lora",
        question="What do scales and shifts reach, beside low-rank updates of the same maps?",
        paper="none",
        base=base.base.with_values(everywhere, source="ssf_vs_lora"),
        axes=(
            Axis(field="method", values=("lora", "ssf"), label="method"),
            Axis(field="alpha", values=(0.25, 0.5, 1.0, 2.0), label="alpha"),
        ),
        views=(View(kind="curves", rows="method", columns="alpha", title="Method x alpha"),),
        fixed="both at mlp1 and mlp2 of all 12 blocks, one learning rate",
        reference=None,
        smoke={"alpha": (0.5, 1.0), "recipe.epochs": (1,)},
    )
