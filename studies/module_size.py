"""How many parameters each method has, as in Table S2. Trains nothing.

Hypothesis (the paper): the compared modules are of similar size. Its LoRA column is not: on three
of five datasets only LoRA together with an adapter has as many parameters as it prints.

    harness sweep --study module_size

Cost: seconds. Ranks and backbones are those of the table; half the blocks and rank 2 are added
because one of its cells fits nothing else.
"""

from pydantic import JsonValue

from harness.studies.depth_vs_position import study as depth_vs_position
from harness.study import Axis, Study


def _variants() -> dict[str, dict[str, JsonValue]]:
    made: dict[str, dict[str, JsonValue]] = {}
    for rank in (2, 4, 8, 256):
        size: dict[str, JsonValue] = {"rank": rank}
        for name, method in (
            ("LoRA", "lora"),
            ("Adapter", "adapter"),
            ("AdaptFormer", "adaptformer"),
        ):
            made[f"{name}, rank {rank}"] = {"method": method, "options": {**size}}
        for name, method in (("Adapter", "adapter"), ("AdaptFormer", "adaptformer")):
            made[f"LoRA + {name}, rank {rank}"] = {
                "method": f"lora+{method}",
                "options": {"lora": {**size}, method: {**size}},
                "positions": "q,v,ffn",
            }
    return made


def study() -> Study:
    base = depth_vs_position()
    return base.derive(
        name="module_size",
        question="How many parameters does each method have?",
        paper="Table S2",
        base=base.base.with_values(
            {"alpha": 1.0, "backbone.weights": "random"}, source="module_size"
        ),
        axes=(
            Axis.named("variant", "method", _variants()),
            Axis(
                field="backbone.name",
                values=("vit_base_patch16_224", "vit_large_patch16_224"),
                label="backbone",
            ),
            Axis(field="depth", values=("all", "last:12"), label="blocks"),
        ),
        views=(),
        fixed="LoRA at Q and V, one adapter per block, heads not counted",
        reference="table_s2",
        smoke={"variant": ("LoRA, rank 4", "Adapter, rank 4", "LoRA + Adapter, rank 4")},
        trains=False,
    )
