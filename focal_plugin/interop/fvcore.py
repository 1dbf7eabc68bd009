"""fvcore.nn's focal losses."""

import torch

from focal_plugin.interop import dense

_SCRIPTED = {
    'sigmoid_focal_loss_jit': 'sigmoid_focal_loss',
    'sigmoid_focal_loss_star_jit': 'sigmoid_focal_loss_star',
}


def sigmoid_focal_loss(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = -1,
    gamma: float = 2,
    reduction: str = 'none',
) -> torch.Tensor:
    """fvcore.nn.sigmoid_focal_loss: the sigmoid focal loss of arXiv 1708.02002 for dense targets.

        loss = alpha_t (1 - p_t)^gamma (-log p_t),  p_t = p targets + (1 - p)(1 - targets),  p = sigmoid(inputs)

    Args:
        inputs: logits of any shape and floating dtype.
        targets: values in [0, 1] of the same shape.
        alpha: weight of the positives in [0, 1]; negative: no weight.
        gamma: focusing exponent, at least 0.
        reduction: 'none', 'mean' (over the elements) or 'sum'.

    Returns:
        The loss, float32 whatever the dtype of inputs, as in fvcore.

    Raises:
        ValueError: shapes that differ, gamma < 0, alpha > 1, or another reduction (which fvcore takes for 'none').
    """
    return dense.sigmoid_focal_loss(inputs.float(), targets, alpha, gamma, reduction)


def sigmoid_focal_loss_star(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    alpha: float = -1,
    gamma: float = 1,
    reduction: str = 'none',
) -> torch.Tensor:
    """fvcore.nn.sigmoid_focal_loss_star: FL* of the appendix of arXiv 1708.02002, without its shift, for dense targets.

        loss = -alpha_t log(sigmoid(gamma x_t)) / gamma,  x_t = inputs (2 targets - 1)

    Args:
        gamma: steepness, above 0; 1 is cross-entropy.

    The other arguments, what is returned and what is raised are those of :func:`sigmoid_focal_loss`.
    """
    return dense.sigmoid_focal_star_loss(inputs.float(), targets, alpha, gamma, reduction)


def __getattr__(name: str):
    """The ``*_jit`` names, scripted at their first use: torch.jit.script warns, and most users need none of them."""
    if name not in _SCRIPTED:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    globals()[name] = torch.jit.script(globals()[_SCRIPTED[name]])
    return globals()[name]
