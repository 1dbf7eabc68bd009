"""More than 2 ** 31 logits: places are counted in 64 bits."""

import pytest
import torch

from focal_plugin import backend, functional

ROWS = 40  # that are looked at, the last ones
pytestmark = [
    pytest.mark.triton,
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (backend.INTERPRETING or torch.cuda.is_available()), reason='needs a GPU, or Triton interpreting'
    ),
]


@pytest.fixture
def _last_programs(monkeypatch):
    """Runs the interpreted kernels' last programs only; what none of them writes costs no memory."""
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', False)
    if not backend.INTERPRETING:
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from focal_plugin.kernels.triton import flat, tiles

    skipped, number = [0], InterpreterBuilder.create_get_program_id

    def shifted(builder, axis):
        handle = number(builder, axis)
        return TensorHandle(handle.data + (skipped[0] if axis == 0 else 0), handle.dtype)

    class Last:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            programs, *others = grid
            skipped[0] = max(0, programs - 16)
            return self.kernel[(programs - skipped[0], *others)]

    monkeypatch.setattr(InterpreterBuilder, 'create_get_program_id', shifted)
    for module, name in ((tiles, 'tiled_kernel'), (flat, 'flat_kernel')):
        monkeypatch.setattr(module, name, Last(getattr(module, name)))


@pytest.mark.usefixtures('_last_programs')
@pytest.mark.parametrize('classes', (80, 3, 365), ids=['tiles', 'a row per thread', 'flat'])
def test_last_rows(classes):
    device = 'cpu' if backend.INTERPRETING else 'cuda'
    rows = 2**31 // classes + ROWS
    needed = 4 * 2 * rows * classes + 8 * rows + 2**30
    if device == 'cuda' and torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f'takes {needed / 2**30:.0f} GiB of GPU memory')
    pred = torch.empty(rows, classes, dtype=torch.bfloat16, device=device)
    target = torch.empty(rows, dtype=torch.int64, device=device)
    if device == 'cuda':
        pred.zero_(), target.zero_()
    pred[-ROWS:] = torch.randn(ROWS, classes, device=device)
    target[-ROWS:] = torch.randint(0, classes + 1, (ROWS,), device=device)
    pred.requires_grad_()
    few = pred.detach()[-ROWS:].clone().requires_grad_()
    upstream = torch.randn(ROWS, classes, device=device).bfloat16()
    with backend.use_backend('triton'):
        expected = functional.sigmoid_focal_loss(few, target[-ROWS:].clone(), reduction='none')
        expected.backward(upstream)
        loss = functional.sigmoid_focal_loss(pred, target, reduction='none')
        torch.testing.assert_close(loss[-ROWS:], expected)
        everywhere = torch.empty_like(loss)
        everywhere[-ROWS:] = upstream
        (grad,) = torch.autograd.grad(loss, pred, everywhere)
    torch.testing.assert_close(grad[-ROWS:], few.grad)
