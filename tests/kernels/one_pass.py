"""A loss on the native backend by its one pass and by its two, and logits and labels for it."""

import pytest
import torch

from focal_plugin.ops import library

N, C = 1031, 7  # several tiles, none of them whole
KEPT = pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=('fp32', 'bf16'))


def logits(rows: int, classes: int) -> torch.Tensor:
    torch.manual_seed(0)
    return 4 * torch.randn(rows, classes)


def labels(classes: int, background: float = 0.5) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.where(torch.rand(N) < background, classes, torch.randint(0, classes, (N,)))


def two_passes(call, pred: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(value, gradient) of call(pred): the value without a gradient, the gradient with the one pass switched off."""
    with torch.no_grad():
        value = call(pred)
    leaf = pred.detach().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, 'has_one_pass', lambda *_: False)
        call(leaf).backward()
    return value, leaf.grad


def one_pass(call, pred: torch.Tensor, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    calls, run = [], library.forward_and_backward
    monkeypatch.setattr(library, 'forward_and_backward', lambda *args, **named: calls.append(1) or run(*args, **named))
    leaf = pred.detach().requires_grad_()
    value = call(leaf)
    value.backward()
    assert calls == [1]
    return value.detach(), leaf.grad


def assert_same(seen: torch.Tensor, wanted: torch.Tensor) -> None:
    """To the bit: the compiler fuses nothing by itself, so that two loops of one formula round alike."""
    torch.testing.assert_close(seen, wanted, rtol=0, atol=0)
