"""Loading checkpoints without running what they hold: mmengine's own objects are allowed by name, any other is refused.

A checkpoint is a pickle, which may name any function to be called with any arguments. torch.load(weights_only=True) calls
none but those that it was told of (torch.serialization.add_safe_globals). mmengine leaves that argument out, so that torch
before 2.6 would call anything; the variable TORCH_FORCE_WEIGHTS_ONLY_LOAD says it for mmengine, and for torch.hub's
downloads, in every torch that has add_safe_globals.
"""

from __future__ import annotations
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OneCycleParamScheduler

ONLY, ANYTHING = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
TRUE = ('1', 'y', 'yes', 'true')

METHODS = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
"""Functions that mmengine keeps in a checkpoint; pickle writes them as getattr(class, name)."""


@contextmanager
def safe_checkpoints() -> Iterator[None]:
    """Within it, a checkpoint that holds more than mmengine's own objects ends the program with a sentence.

    Who sets TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD trusts the file, and gets torch's plain loading.
    """
    if os.environ.get(ANYTHING, '').lower() in TRUE:
        yield
        return
    if not hasattr(torch.serialization, 'add_safe_globals'):
        sys.exit(
            f'torch {torch.__version__} can not be told what a checkpoint may hold, torch 2.4 can: install that, or, if you '
            f'trust your checkpoints, set {ANYTHING}=1 for this command'
        )
    torch.serialization.add_safe_globals(allowed())
    try:
        with mock.patch.dict(os.environ, {ONLY: '1'}):
            yield
    except pickle.UnpicklingError as error:
        if 'Weights only load failed' not in str(error):
            raise
        sys.exit(refusal(str(error)))


def allowed() -> list[Callable]:
    """What a checkpoint of mmengine's may hold beside tensors and Python's own values."""
    # Loading an array or a number looks its dtype's class up too. Objects are no dtype here.
    dtypes = {type(np.dtype(code)) for code in np.typecodes['All'] if code != 'O'}
    # NumPy 1 and 2 call the module by different names; a checkpoint may be of either.
    modules = ('numpy.core.multiarray', 'numpy._core.multiarray')
    builders = {'_reconstruct': np.zeros(0).__reduce__()[0], 'scalar': np.float64(0).__reduce__()[0]}
    functions = [named(f'{module}.{name}', function) for module in modules for name, function in builders.items()]
    return [
        *(HistoryBuffer, MessageHub, ConfigDict, OneCycleParamScheduler),
        *(np.ndarray, np.dtype, *dtypes, *functions),
        named('builtins.getattr', method),
    ]


def named(path: str, function: Callable) -> Callable:
    """The function under another name: torch knows what is allowed by module and name."""

    def call(*args):
        return function(*args)

    call.__module__, _, call.__name__ = path.rpartition('.')
    call.__qualname__ = call.__name__
    return call


def method(owner: type, name: str) -> Callable:
    """getattr, for METHODS alone: with every attribute of every object a pickle could reach anything."""
    if not isinstance(owner, type) or name not in METHODS.get(owner, ()):
        raise pickle.UnpicklingError(f'GLOBAL getattr({owner}, {name!r}) was not an allowed global by default.')
    return getattr(owner, name)


def refusal(error: str) -> str:
    """The sentence for what torch raised."""
    found = re.search(r'GLOBAL (.+?) (?:was not|whose module)', error)
    # Without a name the last words say what could not be read.
    last = error.rpartition('WeightsUnpickler error:')[2].strip().splitlines()[0]
    held = found[1] if found else f'something ({last})'
    return (
        f'the checkpoint was not loaded: it holds {held}, which is neither a tensor nor an object of mmengine, and loading '
        f'that could run any code. Keep what you need of it (torch.save of its state_dict alone, on a machine where it may '
        f'run), or, if you trust whoever made the file, set {ANYTHING}=1 for this command'
    )
