"""Trains small detectors for a few iterations and keeps what parity is judged by.

    python -m tests.heads.parity_run MODE FOLDER NAMES

MODE is 'mmdet', 'override' (the same with focal_plugin.override imported), 'maps' (with heads that copy no class logits) or
'cut' (with heads that hold none); all but the first need what 'mmdet' left in the folder.
"""

import importlib
import sys
from pathlib import Path

import torch
from mmdet.utils import register_all_modules

from tests.heads.detectors import FUSED, batch, build, gradients, losses, with_fixed_norms

ITERATIONS = 5


def step(model: torch.nn.Module, iteration: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The losses and gradients of an iteration."""
    torch.manual_seed(iteration)  # of dropout
    total, log = losses(model, batch(2 * iteration, 2 * iteration + 1))
    model.zero_grad()
    total.backward()
    return {key: float(value) for key, value in log.items()}, gradients(model)


def begun(name: str, seed: int, mode: str) -> torch.nn.Module:
    """The detector as a mode has it, with the same weights in all of them."""
    return with_fixed_norms(build(name, seed, **FUSED[f'{name}, {mode}'][1] if mode in ('maps', 'cut') else {}))


def trained(model: torch.nn.Module) -> dict:
    kinds = [type(module).__name__ for module in model.modules() if type(module).__name__.endswith('Loss')]
    # Plain SGD with clipping: Adam's normalisation would blow rounding up.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    result = dict(kinds=kinds, losses=[], grads=[], weights=[])
    for iteration in range(ITERATIONS):
        result['weights'].append({key: value.clone() for key, value in model.state_dict().items()})
        log, grads = step(model, iteration)
        result['losses'].append(log)
        result['grads'].append(grads)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return result


def at_weights(model: torch.nn.Module, weights: list[dict]) -> list[dict[str, torch.Tensor]]:
    """The gradients of each iteration, begun from these weights."""
    found = []
    for iteration, state in enumerate(weights):
        model.load_state_dict(state)
        found.append(step(model, iteration)[1])
    return found


def main(mode: str, folder: str, *names: str) -> None:
    torch.set_num_threads(1)  # one thread adds up in one order
    torch.use_deterministic_algorithms(True, warn_only=True)
    register_all_modules()
    if mode != 'mmdet':
        importlib.import_module('focal_plugin.override' if mode == 'override' else 'focal_plugin')
    results = {}
    theirs = {} if mode == 'mmdet' else torch.load(Path(folder) / 'mmdet.pt')
    for name in names:
        detector, _, seed = name.partition(':')
        results[name] = trained(begun(detector, int(seed), mode))
        if mode != 'mmdet':
            results[name]['at their weights'] = at_weights(begun(detector, int(seed), mode), theirs[name]['weights'])
    torch.save(results, Path(folder) / f'{mode}.pt')


if __name__ == '__main__':
    main(*sys.argv[1:])
