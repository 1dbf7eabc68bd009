"""Checks that look at values. They run on the CPU only: on a GPU looking would synchronise."""

import torch

from focal_plugin.kernels.problem import Problem


def _has_background(problem: Problem) -> bool:
    """Whether label C is the background, all of whose targets are 0; over a softmax it would be a class without a logit."""
    return problem.spec.skeleton == 'elementwise'


def check_labels(problem: Problem) -> None:
    """Raises ValueError for a label that no class has and that is not ignored."""
    if not problem.has_labels or problem.target.device.type != 'cpu':
        return
    bad = (problem.target < 0) | (problem.target >= problem.pred.size(-1) + _has_background(problem))
    if problem.ignore_index is not None:
        bad &= problem.target != problem.ignore_index
    if bad.any():
        raise bad_label(int(problem.target[bad][0]), problem)


def bad_label(label: int, problem: Problem) -> ValueError:
    classes = problem.pred.size(-1)
    if _has_background(problem):
        range_, background = f'[0, {classes}]', f'and {classes} for the background'
    else:
        range_, background = f'[0, {classes})', 'the background, if there is one, among them'
    return ValueError(
        f'label {label} is outside {range_}: logits of {classes} classes (C) take labels 0 to {classes - 1}, {background}. '
        f'Does num_classes match the annotations? To leave such rows out: ignore_index={label}'
    )


def check_channels(problem: Problem) -> None:
    """Raises ValueError for a label of a mask that no channel has."""
    if problem.channel.device.type != 'cpu' or torch.compiler.is_compiling():
        return
    bad = (problem.channel < 0) | (problem.channel >= problem.pred.size(1))
    if bad.any():
        raise bad_channel(int(problem.channel[bad][0]), problem)


def bad_channel(label: int, problem: Problem) -> ValueError:
    channels = problem.pred.size(1)
    return ValueError(
        f'label {label} is outside [0, {channels}): masks of {channels} channels take labels 0 to {channels - 1}, and a '
        f'mask has no background class. Does num_classes match the annotations? (Class-agnostic masks take label 0.)'
    )


def check_probabilities(problem: Problem) -> None:
    """Raises ValueError for a probability outside [0, 1]."""
    if not problem.activated or problem.pred.device.type != 'cpu' or problem.pred.numel() == 0:
        return
    pred = problem.pred.detach()
    if problem.channel is not None:
        check_channels(problem)
        pred = pred[torch.arange(pred.size(0)), problem.channel]
    low, high = (float(v) for v in torch.aminmax(pred))
    if low < 0 or high > 1:
        raise ValueError(
            f'activated=True takes probabilities in [0, 1], got values from {low:g} to {high:g}: for logits write '
            f'activated=False'
        )
