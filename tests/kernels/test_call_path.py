"""What a call of a loss runs of the package before the kernel: Python's share of a small loss."""

import sys

import pytest
import torch

from focal_plugin import backend
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.ops import prepared

FIRST, LATER = (43, 13), (11, 7)
"""Frames and files of the package, a comprehension among them, which is a frame up to Python 3.11."""


@pytest.mark.skipif(not backend.HAS_NATIVE, reason='the native kernel was not built')
@pytest.mark.parametrize(('is_first', 'most'), [(True, FIRST), (False, LATER)], ids=['a first call', 'one like it'])
def test_few_frames_and_files_lie_between_a_loss_and_its_kernel(is_first, most):
    loss, pred, labels = FusedFocalLoss(), torch.randn(64, 80, requires_grad=True), torch.zeros(64, dtype=torch.int64)
    for _ in range(2):  # what is looked up once, and prepared when it comes again
        loss(pred, labels, avg_factor=5.0)
    if is_first:
        prepared._known.clear()
    frames = []

    def note(frame, event, argument):
        if event == 'call' and 'focal_plugin' in frame.f_code.co_filename:
            frames.append(frame.f_code.co_filename)
        elif event == 'c_call' and argument.__name__ == 'byref':
            sys.setprofile(None)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        loss.forward(pred, labels, avg_factor=5.0)
        reached = sys.getprofile() is None
    finally:
        sys.setprofile(before)
    assert reached
    assert (len(frames) <= most[0]) and len(set(frames)) <= most[1], (len(frames), len(set(frames)))
