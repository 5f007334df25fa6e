"""Hypergradients against a closed form: a quadratic bi-level problem, and finite differences."""

from __future__ import annotations

import pytest
import torch
from support.methods import double, fill, images, setting

from harness.baselines.metapeft.hypergradient import Bilevel, InnerStep, parse_hypergradient
from harness.model.backbones import features

# A quadratic bi-level problem whose hypergradient has a closed form:
# inner ½ φᵀAφ − φᵀBγ (+ decay), outer ½|φ − c|² + dᵀγ + ½|γ|².


class Quadratic:
    def __init__(self, decay):
        rng = torch.Generator().manual_seed(3)

        def draw(*shape):
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        root = draw(5, 5)
        self.a = root @ root.T / 5 + torch.eye(5, dtype=torch.float64)
        self.b, self.c, self.d = draw(5, 3), draw(5), draw(3)
        self.gamma = draw(3).requires_grad_()
        self.decay = decay
        self.hessian = self.a + decay * torch.eye(5, dtype=torch.float64)
        self.solution = torch.linalg.solve(self.hessian, self.b @ self.gamma.detach())
        self.rate = 1 / float(torch.linalg.eigvalsh(self.hessian).max())

    def inner(self, params, batch):
        (phi,) = params
        return phi @ self.a @ phi / 2 - phi @ self.b @ self.gamma

    def outer(self, params, batch):
        return (
            (params[0] - self.c).square().sum() / 2
            + self.d @ self.gamma
            + self.gamma.square().sum() / 2
        )

    @property
    def direct(self):
        return self.d + self.gamma.detach()

    @property
    def exact(self):
        through = torch.linalg.solve(self.hessian, self.solution - self.c)
        return self.direct + self.b.T @ through

    def problem(self, phi, steps, momentum):
        return Bilevel(
            gamma=self.gamma,
            params=[phi.requires_grad_()],
            inner_loss=self.inner,
            outer_loss=self.outer,
            outer_batches=[(None, 0.25), (None, 0.75)],
            steps=steps,
            momentum=momentum,
            weight_decay=self.decay,
        )

    def trained(self, count, momentum):
        """φ after `count` steps of torch's own SGD, with the steps as they were taken."""
        phi = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        sgd = torch.optim.SGD([phi], lr=self.rate, momentum=momentum, weight_decay=self.decay)
        steps = []
        for _ in range(count):
            buffer = sgd.state[phi].get("momentum_buffer")
            velocity = torch.zeros(5, dtype=torch.float64) if buffer is None else buffer.clone()
            steps.append(InnerStep(None, self.rate, [phi.detach().clone()], [velocity]))
            sgd.zero_grad()
            torch.autograd.backward(self.inner([phi], None), inputs=[phi])
            sgd.step()
        return phi.detach(), steps


def error(got, wanted):
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_first_order_is_exactly_the_partial_derivative(decay):
    toy = Quadratic(decay)
    phi, steps = toy.trained(40, 0.0)
    loss, got = parse_hypergradient("first_order")(toy.problem(phi, steps, 0.0))
    assert torch.equal(got, toy.direct)
    assert loss == pytest.approx(float(toy.outer([phi], None).detach()))
    assert error(got, toy.exact) > 0.3  # what it leaves out is not small here


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("momentum,steps", [(0.0, 40), (0.5, 40)])
def test_unrolled_converges_to_the_hypergradient(decay, momentum, steps):
    toy = Quadratic(decay)
    phi, taken = toy.trained(steps, momentum)
    errors = [
        error(parse_hypergradient(f"unrolled:{t}")(toy.problem(phi, taken[-t:], momentum))[1], w)
        for t, w in ((2, toy.exact), (8, toy.exact), (steps, toy.exact))
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_unrolled_is_the_derivative_of_training_itself():
    """Against finite differences of the outer loss after retraining with another γ."""
    toy = Quadratic(0.1)
    phi, steps = toy.trained(4, 0.9)
    _, got = parse_hypergradient("unrolled:4")(toy.problem(phi, steps, 0.9))
    for index in range(3):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                toy.gamma[index] += sign * 1e-5
            sides.append(float(toy.outer([toy.trained(4, 0.9)[0]], None).detach()))
            with torch.no_grad():
                toy.gamma[index] -= sign * 1e-5
        assert float(got[index]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_neumann_converges_to_the_hypergradient(decay):
    toy = Quadratic(decay)
    step = InnerStep(None, toy.rate, [toy.solution], [torch.zeros(5, dtype=torch.float64)])
    errors = [
        error(
            parse_hypergradient(f"neumann:{t}")(toy.problem(toy.solution.clone(), [step], 0.9))[1],
            toy.exact,
        )
        for t in (1, 5, 40)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01


def test_darts_is_one_unrolled_step():
    toy = Quadratic(0.3)
    phi, steps = toy.trained(10, 0.0)
    problem = toy.problem(phi, steps[-1:], 0.0)
    _, finite = parse_hypergradient("darts_fd")(problem)
    _, exact = parse_hypergradient("unrolled:1")(problem)
    assert torch.allclose(finite, exact, rtol=1e-8)


# On a ViT, in float64.


@pytest.mark.parametrize(
    "name,options",
    [
        pytest.param("metapeft", {}, marks=pytest.mark.slow),
        pytest.param("metapeft", {"nonneg": "none"}, marks=pytest.mark.slow),
        ("metapeft", {"gamma_form": "times_alpha"}),
        pytest.param("metapeft:lora+adapter+adaptformer", {}, marks=pytest.mark.slow),
    ],
)
def test_gamma_gradient_equals_finite_differences_at_every_site(name, options, backbones):
    spec, _ = backbones["vit_pico"]
    model = double(spec)
    method, placement, parsed = setting(name, spec, alpha=1.5, options=options)
    attachment = method.attach(model, placement, parsed, seed=0)
    raw = attachment.raw.detach().clone()
    fill(attachment.double())
    x, y = images(spec).double(), torch.tensor([0, 1, 2])
    head = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss():
        return torch.nn.functional.cross_entropy(features(model, x) @ head, y)

    with torch.no_grad():
        attachment.raw.copy_(raw)
    (got,) = torch.autograd.grad(loss(), attachment.raw)
    width = 1e-4
    wanted = torch.zeros_like(got)
    for index in range(len(raw)):
        for sign in (1, -1):
            with torch.no_grad():
                attachment.raw.copy_(raw)
                attachment.raw[index] += sign * width
                wanted[index] += sign * float(loss()) / (2 * width)
    attachment.detach()
    assert len(raw) == len(placement) and float(got.abs().min()) > 0
    relative = (got - wanted).abs() / wanted.abs().clamp(min=1e-3 * float(wanted.abs().max()))
    assert float(relative.max()) < 1e-5
