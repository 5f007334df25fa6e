"""What adaptation does to the classes in feature space, and MetaPEFT beyond LoRA (C.5).

Hypothesis (the paper): with MetaPEFT, features of tail classes lie in tighter, better separated
clusters. The picture alone shows little; compare the silhouettes beside it, which are computed in
feature space.

    harness sweep --study tsne

Cost: 1 minute on 2 CPU cores (9 trials of 6 to 29 s). Trials save their features
themselves: in a store where they have finished without, give another `--out`. Recipe: see
`depth_vs_position`.
"""

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Embedding, Points, Study


def study() -> Study:
    depths = depth_vs_position()
    base = depths.base.model_copy(update={"options": {}, "alpha": 1.0})
    return depths.derive(
        name="tsne",
        question="How far apart are the classes in feature space, before and after adaptation?",
        paper="C.5",
        base=base,
        axes=(Axis(field="method", values=("linear_probe", "lora", "metapeft"), label="method"),),
        seeds=(0, 1, 2),
        views=(
            Embedding(rows="method", title="Test images by t-SNE"),
            Points(rows="method", title="Methods"),
        ),
        fixed="LoRA at q and v; MetaPEFT on LoRA at all sites",
        reference=None,
        smoke={"method": ("linear_probe", "lora"), "recipe.epochs": (1,)},
    )
