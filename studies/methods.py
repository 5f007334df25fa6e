"""Six methods, three of them also with learned strengths, as in Table 4 and Fig. 1(a).

Hypothesis (the paper): MetaPEFT improves LoRA most, helps tail classes more than head classes, and
never hurts. (In its table AdaptFormer loses with it.) Each pair differs in γ alone and has the same
sites and the same initialisation.
LoRA is at Q and V, as in the released code; the paper's own "LoRA" may have been LoRA and an
adapter, by its parameter count (`module_size`).

    harness sweep --study methods

Cost: 3 minutes on 2 CPU cores (27 trials of 11 to 17 s). Recipe: see `depth_vs_position`. One
learning rate for all, fixed at a LoRA cell, so no method but LoRA at MLP1 has had its own tuned;
strength 1 as in the paper.
"""

from pydantic import JsonValue

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Bubbles, Points, Study


def with_gamma(base: str, options: dict[str, JsonValue], positions: str) -> dict[str, JsonValue]:
    """The fields that put MetaPEFT on a method."""
    return {
        "method": "metapeft",
        "options": {"base": base, "base_options": options},
        "positions": positions,
    }


VARIANTS: dict[str, dict[str, JsonValue]] = {
    "VPT-shallow": {"method": "vpt_shallow", "options": {}},
    "BitFit": {"method": "bitfit", "options": {}},
    "VPT-deep": {"method": "vpt_deep", "options": {}},
    "Adapter": {"method": "adapter"},
    "Adapter + MetaPEFT": with_gamma("adapter", {"rank": 4}, "ffn"),
    "AdaptFormer": {"method": "adaptformer"},
    "AdaptFormer + MetaPEFT": with_gamma("adaptformer", {"rank": 4}, "ffn"),
    "LoRA": {"method": "lora"},
    "LoRA + MetaPEFT": with_gamma("lora", {"rank": 4}, "q,v"),
}
"""In the paper's order."""


def study() -> Study:
    base = depth_vs_position()
    return base.derive(
        name="methods",
        question="Which method, and what do learned strengths add to it?",
        paper="Table 4 and Fig. 1(a)",
        base=base.base.with_values({"alpha": 1.0}, source="methods"),
        axes=(Axis.named("variant", "method", VARIANTS),),
        seeds=(0, 1, 2),
        views=(
            Points(rows="variant", title="Methods, with and without learned strengths"),
            Bubbles(rows="variant", title="Tail against overall accuracy"),
        ),
        fixed="rank 4 or 10 prompts, strength 1, one learning rate for all",
        reference=("table4", "fig1a"),
        smoke={"variant": ("BitFit", "LoRA", "LoRA + MetaPEFT"), "recipe.epochs": (1,)},
    )
