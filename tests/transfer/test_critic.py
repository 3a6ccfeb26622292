"""The critic learns to tell domains apart, and features are given its gradient the other way round."""

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mrtransfer.transfer.critic import adversarial_strength, domain_confusion_loss, domain_critic, reverse_gradient


@pytest.mark.parametrize("factor", [0.0, 0.3, 2.0])
def test_the_reversed_gradient_is_minus_the_factor_times_the_gradient(factor):
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (plain,) = torch.autograd.grad(x.sin().square().sum(), x)
    out = reverse_gradient(x, factor)
    (reversed_,) = torch.autograd.grad(out.sin().square().sum(), x)
    assert torch.equal(out, x)
    torch.testing.assert_close(reversed_, -factor * plain, rtol=0, atol=0)


def test_the_strength_rises_from_nothing_to_nearly_one():
    progress = np.linspace(0, 1, 21)
    values = [adversarial_strength(p) for p in progress]
    assert values[0] == 0
    assert values[-1] == pytest.approx(0.9999, abs=1e-4)
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(values, np.tanh(5 * progress), atol=1e-12)  # the same function


def test_the_critics_start_is_a_function_of_its_seed_alone():
    before = torch.random.get_rng_state()
    one, two, three = domain_critic(6, 8, seed=1), domain_critic(6, 8, seed=1), domain_critic(6, 8, seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, three[0].weight)


def test_the_loss_is_the_mean_cross_entropy_of_two_domains_that_count_the_same():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(4, 6, generator=generator), torch.randn(9, 6, generator=generator)
    critic = domain_critic(6, 8)
    of_source = binary_cross_entropy_with_logits(critic(source), torch.ones(4, 1))
    of_target = binary_cross_entropy_with_logits(critic(target), torch.zeros(9, 1))
    expected = (of_source + of_target) / 2
    found = domain_confusion_loss(critic, source, target, 1.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_critic_gets_its_own_gradient_whatever_the_factor_and_features_the_reversed_one():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(5, 6, generator=generator).requires_grad_() for _ in range(2))
    critic = domain_critic(6, 8)
    found = {}
    for factor in (0.0, -1.0, 0.5):
        loss = domain_confusion_loss(critic, source, target, factor)
        found[factor] = torch.autograd.grad(loss, [critic[0].weight, source, target])
    for factor, (of_critic, of_source, of_target) in found.items():
        assert torch.equal(of_critic, found[-1.0][0])
        torch.testing.assert_close(of_source, -factor * found[-1.0][1])
        torch.testing.assert_close(of_target, -factor * found[-1.0][2])
