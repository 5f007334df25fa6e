"""Sums in a layer's own memory: the numbers and gradients of sums that copy."""

from __future__ import annotations

import pytest
import torch
from support.backbones import BACKBONES
from support.methods import double, fill, images, setting
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from harness.baselines.lora import LoRADelta
from harness.errors import UserError
from harness.insertion.attachment import Attachment
from harness.insertion.joining import Term, added
from harness.model.backbones import features, load_backbone
from harness.spec import Placement, Site

PICO = BACKBONES["vit_pico"]
CASES = {
    "q, v": ("lora", ["q", "v"], {}),
    "six": ("lora", ["q", "k", "v", "out", "mlp1", "mlp2"], {}),
    "k alone": ("lora", ["k"], {}),
    "out reads its output": ("lora", ["v", "out"], {"out_input": "output"}),
    "lotr": ("lotr", ["q", "k", "mlp2"], {}),
    "bottleneck": ("bottleneck", ["q", "v", "mlp1"], {}),
    "two at one layer": ("lora+bottleneck", ["q", "k", "out"], {}),
    "learned strengths": ("metapeft:lora", ["q", "v"], {}),
}


def copying(output, terms, *, is_free):
    """As every site did by itself: the output in three parts, joined again."""
    for start, stop, value, up in terms:
        delta = value if up is None else nn.functional.linear(value, up)
        left, right = output[..., :start], output[..., stop:]
        output = torch.cat([left, output[..., start:stop] + delta, right], dim=-1)
    return output


def loss(out):
    """Of features, or tokens. Their sum of squares would be nearly the same whatever they are."""
    probe = torch.randn(out.shape[-1], generator=torch.Generator().manual_seed(5))
    return (out @ probe.to(out.dtype)).square().mean()


def gradients(case, model, *, dtype=None):
    """Features and the gradients of what the method trains."""
    name, positions, options = CASES[case]
    method, placement, parsed = setting(name, PICO, positions=positions, options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    fill(attachment)
    like = next(model.parameters()).dtype
    for name, parameter in attachment.named_parameters():
        parameter.data = parameter.data.to(torch.float64 if name == "raw" else like)
    try:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            out = features(model, images(PICO).to(like))
        loss(out).backward()
        return out.detach(), {n: p.grad for n, p in attachment.named_parameters()}
    finally:
        attachment.detach()


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_sums_that_copy(monkeypatch, case):
    model = double(PICO)
    out, own = gradients(case, model)
    monkeypatch.setattr("harness.insertion.attachment.added", copying)
    wanted, reference = gradients(case, model)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-12)
    assert own.keys() == reference.keys() and any(g.abs().max() > 0 for g in own.values())
    largest = max(gradient.abs().max().item() for gradient in reference.values())
    for name, gradient in own.items():
        # Some are zero but for rounding.
        scale = max(reference[name].abs().max().item(), 1e-6 * largest)
        torch.testing.assert_close(gradient, reference[name], rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("case", ["q, v", "six", "out reads its output", "two at one layer"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16], ids=str)
def test_in_fewer_bits_they_are_as_close_to_those_in_fp64(monkeypatch, case, dtype):
    exact, wanted = gradients(case, double(PICO))
    out, own = gradients(case, load_backbone(PICO, torch.device("cpu")), dtype=dtype)
    monkeypatch.setattr("harness.insertion.attachment.added", copying)
    old_out, old = gradients(case, load_backbone(PICO, torch.device("cpu")), dtype=dtype)

    def error(found):
        off = [(found[name].double() - wanted[name]).norm() for name in wanted]
        return (
            torch.stack(off).norm() / torch.stack([g.norm() for g in wanted.values()]).norm()
        ).item()

    assert (out - exact).norm() <= 1.5 * (old_out - exact).norm() + 1e-6 * exact.norm()
    assert error(own) <= 2 * error(old) + 1e-6
    assert error(own) < (1e-4 if dtype is None else 0.1)


def attached(model, case="six"):
    name, positions, options = CASES[case]
    method, placement, parsed = setting(name, PICO, positions=positions, options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    fill(attachment)
    return attachment


def test_checkpointed_blocks_give_the_same_gradients():
    model = load_backbone(PICO, torch.device("cpu"))
    attachment = attached(model)
    found = []
    for is_kept in (False, True):
        attachment.zero_grad()
        tokens = model.patch_embed(images(PICO))
        for block in model.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if is_kept else block(tokens)
        loss(tokens).backward()
        found.append([p.grad.clone() for p in attachment.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class Whole(nn.Module):
    """A model with its attachment, whose parameters can be given by name."""

    def __init__(self, model, attachment):
        super().__init__()
        self.model, self.attachment = [model], attachment

    def forward(self, x):
        return features(self.model[0], x)


def hessian_vector(model, attachment):
    """A second derivative with respect to parameters given by name, as hypergradients take it."""
    given = {n: p.detach().clone().requires_grad_() for n, p in attachment.named_parameters()}

    named = {f"attachment.{name}": value for name, value in given.items()}
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(functional_call(Whole(model, attachment), named, (images(PICO).double(),)))
        first = torch.autograd.grad(value, list(given.values()), create_graph=True)
        total = sum(g.square().sum() for g in first)
        return torch.autograd.grad(total, list(given.values()))


def test_second_derivatives_by_functional_calls(monkeypatch):
    found = []
    for one in (added, copying):
        monkeypatch.setattr("harness.insertion.attachment.added", one)
        model = double(PICO)
        found.append(hessian_vector(model, attached(model).double()))
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-9, atol=1e-12)
    assert found[0][0].abs().max() > 0


def test_sums_have_correct_first_and_second_derivatives():
    rng = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)

    def total(x, weight, narrow, up, value):
        output = nn.functional.linear(x, weight)
        terms = [Term(0, 2, narrow, up), Term(4, 6, value, None)]
        return added(output, terms, is_free=True).sin()

    inputs = tensor(2, 3, 4), tensor(6, 4), tensor(2, 3, 1), tensor(2, 1), tensor(2, 3, 2)
    assert torch.autograd.gradcheck(total, inputs)
    assert torch.autograd.gradgradcheck(total, inputs)


def test_transforms_of_functions_go_through_copies():
    model = double(PICO)
    attachment = attached(model, "q, v").double()
    names = dict(attachment.named_parameters())

    def total(values):
        named = {f"attachment.{name}": value for name, value in values.items()}
        return loss(functional_call(Whole(model, attachment), named, (images(PICO).double(),)))

    values = {name: p.detach() for name, p in names.items()}
    with sdpa_kernel(SDPBackend.MATH):
        found = torch.func.grad(total)(values)
        _, slope = torch.func.jvp(total, (values,), (found,))
    total(names).backward()
    for name, parameter in names.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)
    assert slope == pytest.approx(sum(g.square().sum().item() for g in found.values()))


def test_without_a_graph_the_numbers_are_the_same():
    model = load_backbone(PICO, torch.device("cpu"))
    attached(model)
    trained = features(model, images(PICO)).detach()
    with torch.no_grad():
        assert torch.equal(features(model, images(PICO)), trained)
    with torch.inference_mode():
        assert torch.equal(features(model, images(PICO)), trained)


class Copies(TorchDispatchMode):
    """Counts tensors of one size that operations other than the layer's own make."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for out in result if isinstance(result, tuple | list) else [result]:
            is_new = isinstance(out, torch.Tensor) and not _is_view(function)
            self.count += is_new and out.numel() == self.numel
        return result


def _is_view(function):
    return any(r.alias_info is not None for r in function._schema.returns)


def test_no_site_copies_the_output_that_q_k_and_v_share():
    """In the forward and the backward pass: as many such tensors as without any site."""
    model, x = load_backbone(PICO, torch.device("cpu")), images(PICO)
    whole = 3 * (1 + model.patch_embed.num_patches) * model.blocks[0].attn.qkv.out_features
    found = {}
    for case in ("k alone", "q, v", "six", None):
        # So that the backward pass goes through all blocks without a site, too.
        attachment = attached(model, case) if case else Attachment(model)
        bias = model.blocks[0].norm1.bias.requires_grad_()
        with Copies(whole) as copies:
            loss(features(model, x)).backward()
        bias.requires_grad_(requires_grad=False)
        attachment.detach()
        found[case] = copies.count
    assert found["k alone"] == found["q, v"] == found["six"] == found[None] > 0


def test_an_output_that_another_hook_has_read_is_not_written_over():
    model = double(PICO)
    layer, kept = model.blocks[0].attn.qkv, []
    watching = layer.register_forward_hook(lambda m, a, y: kept.append(y))
    attachment = attached(model, "q, v").double()
    out = features(model, images(PICO).double())
    before = kept[0].detach().clone()
    (loss(out) + kept[0].square().mean()).backward()
    watching.remove()
    assert torch.equal(kept[0], before)
    attachment.detach()
    features(model, images(PICO).double())
    x = []
    layer.register_forward_hook(lambda m, a, y: x.append(y))
    features(model, images(PICO).double())
    assert torch.equal(x[0], before)  # it was the layer's own output


def test_a_module_with_a_forward_of_its_own_is_called():
    class Twice(LoRADelta):
        def forward(self, x, strength):
            return 2 * super().forward(x, strength)

    def moved(kind):
        model = double(PICO)
        plain = features(model, images(PICO).double())
        attachment = Attachment(model)
        delta = kind(torch.full((2, 64), 1e-4), 64, 1.0)
        delta.up.data.fill_(1e-4)
        attachment.add_delta(Site(11, "v"), delta.double(), 1.0, "parallel")
        return features(model, images(PICO).double()) - plain

    assert Placement({"11.v": 1.0})  # the site's name in files
    torch.testing.assert_close(moved(Twice), 2 * moved(LoRADelta), rtol=1e-3, atol=0)


def test_a_form_that_does_not_exist_is_refused():
    delta = LoRADelta(torch.zeros(2, 64), 64, 1.0)
    with pytest.raises(UserError, match=r"form of a Δ: 'seq'\. Allowed: parallel, seq"):
        Attachment(double(PICO)).add_delta(Site(11, "out"), delta.double(), 1.0, "seq")
