"""Whether NVRTC's kernels run and are right on a device: asked once, before their first results are used."""

from __future__ import annotations
from functools import partial

import torch
from torch import Tensor

from focal_plugin.kernels import selftest
from focal_plugin.kernels.cuda import elementwise
from focal_plugin.kernels.problem import Problem

CLASSES = (9, 8, 1)  # walked in order, in groups of a row, and along the rows

_verdicts: dict[tuple[torch.device, bool], RuntimeError | None] = {}


def require(pred: Tensor, in_one_pass: bool = False) -> None:
    """Tests the device of these logits; raises RuntimeError where the results are wrong, or there are none."""
    selftest.require(pred, in_one_pass, _verdicts, _verdict)


def _verdict(device: torch.device, in_one_pass: bool) -> RuntimeError | None:
    try:
        with torch.inference_mode(False):  # the expected gradient is autograd's
            computed = partial(_computed, in_one_pass=in_one_pass)
            faults = (selftest.fault('cuda', device, classes, computed) for classes in CLASSES)
            fault = next(filter(None, faults), None)
    except Exception as error:
        if selftest.ran_out_of_memory(error):
            raise
        fault = f'{type(error).__name__}: {error}'
    if fault is None:
        return None
    return RuntimeError(
        f'the cuda backend fails the self-test on {device}, a focal loss of known values: {fault}. Choose the torch '
        f"backend: with focal_plugin.use_backend('torch'), or FOCAL_PLUGIN_BACKEND=torch in the environment"
    )


def _computed(problem: Problem, in_one_pass: bool) -> tuple[Tensor, Tensor]:
    if in_one_pass:
        grad = torch.empty_like(problem.pred)
        return elementwise.forward_and_backward(problem, grad), grad
    loss = elementwise.forward(problem)
    return loss, elementwise.backward(problem, torch.ones_like(loss))
