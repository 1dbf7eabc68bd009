"""Calls of the variants as detectors make them, for the benchmark and the kernel report."""

from typing import Any

import torch

from focal_plugin.math import Spec
from focal_plugin.math.spec import REQUIRED


def typical_arguments(spec: Spec, classes: int, device: str = 'cpu') -> dict[str, Any]:
    """The defaults, with a number per class where a long-tailed data set gives one."""
    arguments = dict(spec.defaults)
    if arguments.get('samples_per_class') is REQUIRED:
        arguments['samples_per_class'] = tuple(10.0 + c for c in range(classes))
    if 'ratio' in arguments:
        arguments['ratio'] = torch.linspace(0.05, 1, classes).to(device)
    return arguments
