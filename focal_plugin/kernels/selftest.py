"""A focal loss of known values, by which a backend is asked once whether it computes what its kernels say."""

from __future__ import annotations
from collections.abc import Callable

import torch
from torch import Tensor

from focal_plugin.kernels.problem import Problem
from focal_plugin.kernels.torch import elementwise as plain
from focal_plugin.math import SPECS

TOLERANCE = 1e-4  # relative


def fault(
    backend: str, device: torch.device, classes: int, computed: Callable[[Problem], tuple[Tensor, Tensor]]
) -> str | None:
    """What is wrong with the focal loss of a positive, a background row and another positive, and its gradient.

    Args:
        computed: gives both for a problem on the device.
    """
    logits = torch.linspace(-6, 6, 3 * classes, dtype=torch.float64, device='cpu').view(3, classes)
    labels = torch.tensor([0, classes, classes - 1], device='cpu')
    problem = Problem(
        pred=logits,
        target=labels,
        score=None,
        weight=None,
        per_class_parameters=None,
        avg_factor=None,
        channel=None,
        variant='focal',
        parameters=list(SPECS['focal'].pack(**SPECS['focal'].defaults)),
        activated=False,
        ignore_index=None,
        scale=1.0,
        output='sum',
        backend=backend,
    )
    loss, grad = plain.forward(problem), plain.backward(problem, logits.new_ones(()))
    found = computed(problem._replace(pred=logits.float().to(device), target=labels.to(device)))
    for name, actual, expected in zip(('loss', 'gradient'), found, (loss, grad)):
        error = float(((actual.to('cpu', torch.float64) - expected) / expected).abs().max())
        if error != error:
            return f'of {classes} classes the {name} is NaN or was left unwritten'
        if error > TOLERANCE:
            return f'of {classes} classes the {name} is off by {error:.1e} of its value'
    return None


def require(
    pred: Tensor,
    in_one_pass: bool,
    verdicts: dict[tuple[torch.device, bool], RuntimeError | None],
    verdict_of: Callable[[torch.device, bool], RuntimeError | None],
) -> None:
    """Tests the device of these logits, unless that is done, or nothing is computed there now.

    Args:
        in_one_pass: by the kernel of a loss and its gradient, which few need, instead of by that of each.

    Raises:
        RuntimeError: the verdict, which every later call raises again.
    """
    asked = pred.device, in_one_pass
    if asked not in verdicts:
        if pred.is_meta or (pred.is_cuda and _may_not_wait()):
            return
        verdicts[asked] = verdict_of(*asked)
    verdict = verdicts[asked]
    if verdict is not None:
        raise verdict.with_traceback(None)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is no verdict on a device; Triton says it in words alone."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or 'out of memory' in str(error)


def _may_not_wait() -> bool:
    """Whether a CUDA graph is being recorded, or waiting for results is an error (torch.cuda.set_sync_debug_mode)."""
    return torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode() == 2
