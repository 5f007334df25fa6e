"""How strong should LoRA be in each part of the laboratory's own transformer, on its own data?

    harness sweep --study lab_strengths.py --search coordinate --budget 8

Cost: a minute on 2 CPU cores (8 trials).
"""

from harness.spec import BackboneSpec, DataSpec
from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study, View


def study() -> Study:
    base = depth_vs_position()
    own = {
        "backbone": BackboneSpec(name="lab_vit", weights="random"),
        "data": DataSpec(name="gratings"),
    }
    return base.derive(
        name="lab_strengths",
        question="How strong should the modules be at each position?",
        paper="none",
        base=base.base.model_copy(update=own),
        axes=(
            Axis(field="positions", values=("mlp1", "q", "v"), label="position"),
            Axis(field="alpha", values=(0.5, 2.0, 8.0), label="alpha"),
        ),
        views=(View(kind="heatmap", rows="positions", columns="alpha", title="Position x alpha"),),
        fixed="LoRA rank 4 in all 4 blocks of a backbone with random weights",
        reference=None,
        smoke={"alpha": (0.5, 2.0), "recipe.epochs": (1,)},
    )
