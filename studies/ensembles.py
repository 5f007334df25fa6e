"""LoRA, AdaptFormer, and both at once, as in Table S6.

Hypothesis (the paper): the sum is at least as good as the better of the two. The sum has the
parameters of both, and the paper's tables print three different LoRA results for the same data.

    harness sweep --study ensembles

Cost: 1 minute on 2 CPU cores (9 trials of 11 to 15 s; 6 are shared with `methods`). Recipe: see
there.
"""

from pydantic import JsonValue

from harness.studies.methods import VARIANTS
from harness.studies.methods import study as methods
from harness.study import Axis, Points, Study


def study() -> Study:
    both: dict[str, JsonValue] = {"lora": {"rank": 4}, "adaptformer": {"rank": 4}}
    return methods().derive(
        name="ensembles",
        question="Is a sum of two methods better than its parts?",
        paper="Table S6",
        axes=(
            Axis.named(
                "variant",
                "method",
                {
                    "LoRA": VARIANTS["LoRA"],
                    "AdaptFormer": VARIANTS["AdaptFormer"],
                    "LoRA + AdaptFormer": {
                        "method": "lora+adaptformer",
                        "options": both,
                        "positions": "q,v,ffn",
                    },
                },
            ),
        ),
        views=(Points(rows="variant", title="Two methods and their sum"),),
        fixed="rank 4, strength 1, LoRA at Q and V, one learning rate for all",
        reference="table_s6",
        smoke={"variant": ("LoRA", "LoRA + AdaptFormer"), "recipe.epochs": (1,)},
    )
