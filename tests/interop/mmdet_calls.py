"""What the tests of mmdet's focal loss functions call both sides with, and how they compare them."""

import torch
import torch.nn.functional as F

from tests.interop.peers import value_and_grad

ROWS, CLASSES = 12, 5


def random(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def labelled():
    """Logits, labels (some of them background) and the same labels one-hot."""
    generator = torch.Generator().manual_seed(0)
    x = 8 * torch.rand(ROWS, CLASSES, generator=generator, dtype=torch.float64) - 4
    labels = torch.randint(0, CLASSES + 1, (ROWS,), generator=generator)
    return x, labels, F.one_hot(labels, CLASSES + 1)[:, :CLASSES]


def same(mine, theirs, pred, my_target, their_target, *rest, **arguments):
    """In float64, where mmdet's formula is sound at these logits: values, and gradients under a random upstream one.

    The absolute tolerance is for soft targets, where the terms of a gradient cancel.
    """
    upstream = None
    if arguments.get('reduction') == 'none':
        upstream = random(ROWS) if 'quality' in mine.__name__ else random(ROWS, CLASSES)
    a = value_and_grad(lambda x: mine(x, my_target, *rest, **arguments), pred, upstream)
    b = value_and_grad(lambda x: theirs(x, their_target, *rest, **arguments), pred, upstream)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)
