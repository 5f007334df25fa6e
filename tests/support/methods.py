"""Methods at chosen sites, backbones in float64, and a plain ViT written out from its equations."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import gelu, layer_norm, linear, softmax

from harness.insertion.method import get_method
from harness.model.backbones import dims, load_backbone
from harness.spec import Placement, Site


def over(name):
    """Method and base of `a:b`; the colon in `hf:NAME` is part of a name."""
    method, _, base = name.partition(":")
    return (name, "") if method == "hf" else (method, base)


def setting(name, spec, *, blocks=None, positions=None, alpha=2.0, options=None):
    """A method with a placement on all its positions, in all blocks unless said otherwise.

    `a:b` is method a over the base b.
    """
    name, base = over(name)
    method = get_method(name)
    parsed = method.parse_options({**({"base": base} if base else {}), **(options or {})})
    blocks = range(dims(spec).num_blocks) if blocks is None else blocks
    positions = positions or method.positions_on(dims(spec), parsed)
    placement = Placement.of(positions, blocks, alpha)
    return method, placement, parsed


def images(spec, n=3, seed=1):
    size = spec.img_size or 32
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def double(spec):
    return load_backbone(spec, torch.device("cpu")).double()


def fill(attachment, seed=7):
    """Give every PEFT tensor a random value, so that nothing is hidden by a zero start."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in attachment.named_parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data.copy_(0.2 * noise)
        if name.endswith("down.bias"):
            parameter.data += 3  # a ReLU that is off for every token would pass no gradient


def reference(model, x, *, linear_delta=None, sub_block=None):
    """Features of a plain ViT, written out unfused from its equations.

    `linear_delta(site, x, y)` gets a linear map's input and output, `sub_block(site, x, y)` the
    residual stream entering a branch and the branch's result; both return the new output.
    """
    linear_delta = linear_delta or (lambda site, x, y: y)
    sub_block = sub_block or (lambda site, x, y: y)
    x = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for index, block in enumerate(model.blocks):
        attn, d = block.attn, x.shape[-1]

        def at(position, layer, value, rows=slice(None), index=index):
            bias = layer.bias[rows] if layer.bias is not None else None
            y = linear(value, layer.weight[rows], bias)
            return linear_delta(Site(index, position), value, y)

        h = layer_norm(x, (d,), block.norm1.weight, block.norm1.bias, block.norm1.eps)
        q, k, v = (
            at(p, attn.qkv, h, slice(i * d, i * d + d)).unflatten(-1, (attn.num_heads, -1))
            for i, p in enumerate("qkv")
        )
        scores = torch.einsum("nqhc,nkhc->nhqk", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("nhqk,nkhc->nqhc", softmax(scores, dim=-1), v).flatten(2)
        branch = block.ls1(at("out", attn.proj, mixed))
        x = x + sub_block(Site(index, "attn"), x, branch)
        h = layer_norm(x, (d,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
        branch = block.ls2(at("mlp2", block.mlp.fc2, gelu(at("mlp1", block.mlp.fc1, h))))
        x = x + sub_block(Site(index, "ffn"), x, branch)
    return model.norm(x)[:, 0]
