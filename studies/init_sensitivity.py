"""The initialisation of A against alpha: does the released one cause the collapse of Fig. 1(d)?

The released code draws A from U(±1/√r), LoRA from U(±1/√d): 13.9 times wider on ViT-B/16 at rank
4, 4 times on the embedded backbone. The first steps of SGD change the weights by (alpha/r)² η AᵀA
times a gradient, so at first an A that is c times wider acts like a c times larger alpha.

Hypothesis (ours): the released curve is the standard one shifted to the left by two powers of two.
The paper's collapses, between alpha 1 and 8, would lie nearly four powers higher with the standard
initialisation. Tried at V, which collapses first there, and at K, which collapses last.

    harness sweep --study init_sensitivity

Cost: 5 minutes on 2 CPU cores (48 trials of 12 to 17 s; half are shared with `position_vs_alpha`).
Recipe: see `depth_vs_position`.
"""

from harness.studies.position_vs_alpha import study as position_vs_alpha
from harness.study import Axis, Study, View


def study() -> Study:
    base = position_vs_alpha()
    (alphas,) = (axis for axis in base.axes if axis.field == "alpha")
    return base.derive(
        name="init_sensitivity",
        question="Does the collapse at large alpha come from how A starts?",
        paper="Fig. 1(d), with another start of A",
        axes=(
            Axis.named(
                "variant",
                "position, start of A",
                {
                    f"{position.upper()}, {start}": {"positions": position, "options.init": start}
                    for position in ("v", "k")
                    for start in ("standard", "released")
                },
            ),
            alphas,
        ),
        views=(View(kind="curves", rows="variant", columns="alpha", title="Start of A × alpha"),),
        reference=None,
        smoke={
            "variant": ("V, standard", "V, released"),
            "alpha": (4.0,),
            "recipe.epochs": (1,),
        },
    )
