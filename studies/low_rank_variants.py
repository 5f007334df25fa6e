"""LoRA, the LIFT recipe and LoTR, each with and without learned strengths, as in Table S7.

Hypothesis (the paper): learned strengths gain little on LIFT. The numbers of Table S7 are not in
our copy. LIFT (shijxcs/LIFT) is the recipe that all of these share (logit-adjusted loss, cosine
head started at class means), with AdaptFormer of the width that its code derives from the number
of classes, 1 for 15 classes and 12 blocks, and a trained scale that starts at 1; its test-time
ensemble is left out. LoTR (arXiv:2402.01376) shares LoRA's factors over the blocks, with a core
per site. The released code has a LoTR that it never uses, and whose shapes do not fit.

    harness sweep --study low_rank_variants

Cost: 2 minutes on 2 CPU cores (18 trials of 13 to 19 s; 6 are shared with `methods`). Recipe: see
there.
"""

from harness.studies.methods import VARIANTS, with_gamma
from harness.studies.methods import study as methods
from harness.study import Axis, Points, Study


def study() -> Study:
    return methods().derive(
        name="low_rank_variants",
        question="Do learned strengths help other low-rank methods than LoRA?",
        paper="Table S7 (numbers not at hand)",
        axes=(
            Axis.named(
                "variant",
                "method",
                {
                    "LoRA": VARIANTS["LoRA"],
                    "LoRA + MetaPEFT": VARIANTS["LoRA + MetaPEFT"],
                    "LIFT": {"method": "adaptformer", "options": {"rank": 1}},
                    "LIFT + MetaPEFT": with_gamma("adaptformer", {"rank": 1}, "ffn"),
                    "LoTR": {"method": "lotr"},
                    "LoTR + MetaPEFT": with_gamma("lotr", {"rank": 4}, "q,v"),
                },
            ),
        ),
        views=(Points(rows="variant", title="Low-rank methods and learned strengths"),),
        fixed="rank 4 (LIFT: 1), strength 1, LoRA and LoTR at Q and V, one learning rate for all",
        reference=None,
        smoke={"variant": ("LIFT", "LoTR", "LoTR + MetaPEFT"), "recipe.epochs": (1,)},
    )
