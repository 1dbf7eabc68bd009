"""Trains small detectors for a few iterations, with mmdet's losses and then with ours, and keeps how far apart they are.

    python -m tests.heads.parity_run mmdet FOLDER NAMES
    python -m tests.heads.parity_run MODE FOLDER NAMES

The second reads what the first left in the folder, a file for each name, deletes it (weights and gradients of eighteen
detectors are gigabytes) and writes compared.json. MODE is 'override' (the same with focal_plugin.override imported), 'maps'
(with heads that copy no class logits) or 'cut' (with heads that hold none).
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from mmdet.utils import register_all_modules

from tests.heads.detectors import FUSED, batch, build, error, gradients, losses, with_fixed_norms

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


def errors_at(weights: list[dict], model: torch.nn.Module, expected: list[dict[str, torch.Tensor]]) -> list[float]:
    """Of the gradients of each iteration, begun from these weights."""
    found = []
    for iteration, grads in enumerate(expected):
        model.load_state_dict(weights[iteration])
        found.append(error(step(model, iteration)[1], grads))
    return found


def compared(theirs: dict, name: str, seed: int, mode: str) -> dict:
    ours = trained(begun(name, seed, mode))
    return {
        'mmdet': {key: theirs[key] for key in ('kinds', 'losses')},
        'ours': {key: ours[key] for key in ('kinds', 'losses')},
        'errors of runs left alone': list(map(error, ours['grads'], theirs['grads'])),
        'errors at the same weights': errors_at(theirs['weights'], begun(name, seed, mode), theirs['grads']),
    }


def main(mode: str, place: str, *names: str) -> None:
    torch.set_num_threads(1)  # one thread adds up in one order
    torch.use_deterministic_algorithms(True, warn_only=True)
    register_all_modules()
    if mode != 'mmdet':
        importlib.import_module('focal_plugin.override' if mode == 'override' else 'focal_plugin')
    folder, results = Path(place), {}
    for name in names:
        detector, _, seed = name.partition(':')
        kept = folder / f'{name}.pt'
        if mode == 'mmdet':
            torch.save(trained(begun(detector, int(seed), mode)), kept)
        else:
            results[name] = compared(torch.load(kept), detector, int(seed), mode)
            kept.unlink()
    if mode != 'mmdet':
        (folder / 'compared.json').write_text(json.dumps(results))


if __name__ == '__main__':
    main(*sys.argv[1:])
