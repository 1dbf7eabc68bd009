"""How often plain PyTorch walks over a chunk of logits, forward and backward: on a CPU its time is that of these passes."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import focal_plugin
from focal_plugin import functional
from tests.variants import VARIANTS

N, C = 160, 8
MOVES_NOTHING = {torch.ops.aten.detach.default, torch.ops.aten.empty_like.default, torch.ops.aten.new_zeros.default}


class Passes(TorchDispatchMode):
    """Counts the operators that read or write a number for every logit."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        self.count += max(sizes, default=0) >= N * C and not func.is_view and func not in MOVES_NOTHING
        return out


def passes(name: str, logits: torch.Tensor, *args, **arguments) -> int:
    """The operators of a loss, forward and backward."""
    leaf = logits.clone().requires_grad_()
    given = VARIANTS[name].required(C) | VARIANTS[name].of_logits
    with focal_plugin.use_backend('torch'), Passes() as seen:
        functional.FUNCTIONS[name](leaf, *args, avg_factor=7.0, **given, **arguments).backward()
    return seen.count


@pytest.mark.parametrize('name', [name for name, variant in VARIANTS.items() if variant.passes])
def test_exact_derivatives_cost_no_pass_more(name):
    """Than they took when they were autograd's, half right at the ends.

    The star loss then had the fused logsigmoid of PyTorch, which is slower than three passes more.
    """
    logits, labels, weight = torch.randn(N, C), torch.arange(N) % C, torch.rand(N)
    assert passes(name, logits, labels, weight) <= VARIANTS[name].passes


def test_an_ignore_index_costs_nothing_where_no_row_is_ignored():
    logits, labels, weight = torch.randn(N, C), torch.arange(N) % C, torch.rand(N)
    assert passes('focal', logits, labels, weight, ignore_index=255) == passes('focal', logits, labels, weight)


def test_only_an_exponent_of_zero_costs_a_choice():
    """Its power is 1 whatever the logarithm."""
    logits, labels, weight = torch.randn(N, C), torch.arange(N) % C, torch.rand(N)
    none_is_zero, one_is_zero = (
        passes('focal', logits, labels, weight, gamma=[g] + [1.5] * (C - 1)) for g in (1.5, 0.0)
    )
    assert none_is_zero < one_is_zero
