"""What a call of a loss runs of the package before the kernel: Python's share of a small loss."""

import sys

import pytest
import torch

from focal_plugin import backend
from focal_plugin.losses import FusedFocalLoss

FRAMES, FILES = 35, 12
"""Of the package, a comprehension among them, which is a frame up to Python 3.11."""


@pytest.mark.skipif(not backend.HAS_NATIVE, reason='the native kernel was not built')
def test_few_frames_and_files_lie_between_a_loss_and_its_kernel():
    loss, pred, labels = FusedFocalLoss(), torch.randn(64, 80, requires_grad=True), torch.zeros(64, dtype=torch.int64)
    loss(pred, labels, avg_factor=5.0)  # what is looked up once
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
    assert len(frames) <= FRAMES and len(set(frames)) <= FILES
