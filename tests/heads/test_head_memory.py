"""Heads that never copy their logits: what is made between their outputs and the gradients, operator by operator."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import focal_plugin
from tests.allocations import allocations
from tests.heads.stock import (
    DENSE,
    FIVE,
    HANDED,
    HANDED_PAIRS,
    HEADS,
    PAIRS,
    SIZES,
    built,
    losses_of,
    outputs,
    with_loss,
)  # fmt: skip

PRIME = 211  # classes: the size of what holds a number per class is its multiple, and of nothing else
SMALL_BOXES = ([[8.0, 8, 30, 32]], [[30.0, 30, 50, 54]])  # fewer points in objects than a level has rows

pytestmark = pytest.mark.skipif(not focal_plugin.backend.HAS_NATIVE, reason='the native kernel was not built')


class Made(TorchDispatchMode):
    """What operators make that holds a number per class and is as large as the smallest level of logits."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.tensors = least, []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        given = {storage_of(each) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and storage_of(each) not in given:
                if each.numel() >= self.least and each.numel() % PRIME == 0:
                    self.tensors.append((each.numel(), str(operator)))
        return result


def storage_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def made(name: str, arguments: dict, channels_last: bool, dtype: torch.dtype) -> tuple[list, list[int], list[int]]:
    """(sizes and operators, bytes) of what a step makes from the head's outputs to gradients, and the levels' sizes."""
    head = built(name, arguments)
    leaves = outputs(head, channels_last, dtype)
    levels = sorted(level.numel() for level in leaves[0])
    every = [leaf for kind in leaves for leaf in kind]

    def step():
        torch.autograd.grad(sum(losses_of(head, leaves, SMALL_BOXES).values()).sum(), every, allow_unused=True)

    step()  # what is cached, the anchors for one, is made here
    with Made(levels[0]) as seen:
        step()
    least = levels[0] * dtype.itemsize
    return sorted(seen.tensors), sorted(n for n in allocations(step) if n >= least and n % PRIME == 0), levels


DIVIDING = ('RTMDet', 'TOOD', 'DDOD')


def check_nothing_but_gradients(name: str, arguments: dict, channels_last=False, dtype=torch.float32, more=()) -> None:
    tensors, sizes, levels = made(f'Fused{name}', arguments, channels_last, dtype)
    expected = sorted([*levels, *more])
    assert [size for size, _ in tensors] == expected, tensors
    wanted = [size * dtype.itemsize for size in expected]
    # These heads divide their losses, and a kept gradient of bfloat16 would be rounded twice: it is computed again.
    if dtype is torch.bfloat16 and name.startswith(DIVIDING):
        assert set(sizes) == set(wanted) and not Counter(sizes) - Counter(2 * wanted), sizes
    else:
        assert sizes == wanted  # inside the kernels, too


@pytest.mark.sampled(18)
@pytest.mark.parametrize('head', (*FIVE, *HANDED))
@pytest.mark.parametrize('channels_last', (False, True), ids=('NCHW', 'channels last'))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
def test_nothing_of_the_logits_size_but_their_gradient_is_made(head, channels_last, dtype):
    name, arguments = HEADS[head]
    check_nothing_but_gradients(name, arguments | dict(num_classes=PRIME), channels_last, dtype)


@pytest.mark.sampled(24)
@pytest.mark.parametrize(('head', 'loss'), [*PAIRS, *HANDED_PAIRS])
def test_nothing_but_the_gradient_is_made_for_any_loss_that_a_head_can_take(head, loss):
    check_nothing_but_gradients(*with_loss(head, loss, PRIME))


@pytest.mark.parametrize('head', ('atss, nine anchors a location', 'vfnet, labels'))
def test_nothing_but_the_gradient_is_made_for_other_ways_through_a_head(head):
    name, arguments = HEADS[head]
    check_nothing_but_gradients(name, arguments | dict(num_classes=PRIME))


@pytest.mark.parametrize('loss', DENSE)
def test_vfnet_makes_dense_targets_for_a_loss_that_takes_nothing_less(loss):
    """The one exception: not the logits' copy, but as large."""
    rows = sum(2 * height * width for height, width in SIZES)
    check_nothing_but_gradients(*with_loss('vfnet', loss, PRIME), more=[rows * PRIME])


@pytest.mark.parametrize('head', (*FIVE, *HANDED))
def test_the_stock_heads_copy_each_level(head):
    """So the counting sees what it is there for."""
    name, arguments = HEADS[head]
    tensors, sizes, levels = made(name, arguments | dict(num_classes=PRIME), False, torch.float32)
    assert sum(size for size, _ in tensors) >= 2 * sum(levels)
    assert sum(sizes) >= 2 * 4 * sum(levels)
