"""Tensors of vision transformers as Hugging Face transformers names them.

Owns: their names in ViT, DINOv3 and SigLIP, in files of any release. Must not know: file formats,
which model they are for, sites, data.

They become those of the models' authors: DINOv3's own, of which timm knows what to make, and of the
others timm's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

VIT_STEM = "embeddings.patch_embeddings.projection.weight"
DINOV3_STEM = "embeddings.patch_embeddings.weight"
SIGLIP_STEM = "embeddings.patch_embedding.weight"
TRANSFORMERS_STEMS = (VIT_STEM, DINOV3_STEM, SIGLIP_STEM)
"""The first convolution, named from the root of the image tower on."""

NAMES = (
    (r"^embeddings\.patch_embedding(s\.projection|s|)\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "storage_tokens"),
    (r"^embeddings\.position_embedding(s|\.weight)$", "pos_embed"),
    (r"^(encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\2."),
    (r"(attention|self_attn)\.(attention\.query|q_proj)\.", "attn.q."),
    (r"(attention|self_attn)\.(attention\.key|k_proj)\.", "attn.k."),
    (r"(attention|self_attn)\.(attention\.value|v_proj)\.", "attn.v."),
    (r"(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", "attn.proj."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(^blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^(post_)?layernorm\.", "norm."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
"""A pattern in a name, and what stands there instead; all that match are applied, in this order."""

MLP = {"up_proj": "fc1", "down_proj": "fc2"}
GATED_MLP = {"gate_proj": "w1", "up_proj": "w2", "down_proj": "w3"}
"""The maps of DINOv3's MLPs."""

LEFT_OUT = ("pooler.", "embeddings.mask_token", "rope_embeddings.")
"""What transformers trains or keeps beside the features."""


def as_their_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an image tower under its authors' names, q, k and v in one."""
    is_gated = any(".mlp.gate_proj." in name for name in state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(LEFT_OUT):
            continue
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        for theirs, ours in (GATED_MLP if is_gated else MLP).items():
            name = name.replace(f".mlp.{theirs}.", f".mlp.{ours}.")
        if name == "pos_embed":
            tensor = tensor.reshape(1, *tensor.shape[-2:])
        found[name] = tensor
    for kind in ("weight", "bias"):
        _join(found, kind)
        whole = found.pop(f"head.attention.in_proj_{kind}", None)
        if whole is not None:
            q, k, v = whole.chunk(3)
            found |= {f"attn_pool.q.{kind}": q, f"attn_pool.kv.{kind}": torch.cat([k, v])}
    return found


def _join(found: dict[str, Tensor], kind: str) -> None:
    """Put q, k and v of every block into one tensor, with zeros for a bias that one lacks."""
    for name in [name for name in found if name.endswith(f".attn.q.{kind}")]:
        start = name.removesuffix(f"q.{kind}")
        q = found.pop(name)
        rest = (found.pop(f"{start}{part}.{kind}", torch.zeros_like(q)) for part in "kv")
        found[f"{start}qkv.{kind}"] = torch.cat([q, *rest])
