"""Absolute errors that are allowed besides the relative ones: of p, and of what underflows."""

import numpy as np

from tests.oracle import array


def allowed(exact, through_p, flushed, tiny, eps):
    """An absolute error."""
    vanishing = np.where(flushed & (np.abs(exact) < 1024 * tiny), np.abs(exact) + tiny, 0)
    through_p = np.nan_to_num(np.abs(through_p), nan=0.0, posinf=np.inf)  # inf - inf where a loss is infinite
    return np.where(np.isnan(exact), 0, 1.001 * through_p * eps + vanishing)


def has_vectors(variant: str, given: dict) -> bool:
    """Whether the parameters are one number per class each."""
    vectors = (np.ndim(array(each)) > 0 for name, each in given.items() if name != 'samples_per_class')
    return variant == 'equalized_focal' or any(vectors)


def flushed(grad, factor, scale, tiny):
    """Where a gradient under an upstream one of 1 may be 0: beside vectors the native kernel flushes what underflows on the
    way there, and no upstream gradient brings it back."""
    with np.errstate(invalid='ignore'):
        return np.abs(grad) * np.minimum(np.abs(factor), 1) * np.minimum(np.abs(scale), 1) < tiny
