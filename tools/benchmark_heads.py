"""Times the losses as heads call them, on the maps and masks that heads have; rows go into tools/results/maps.csv.

- RetinaNet's class loss: batch 2, 512 x 512 images, 9 anchors, 80 classes, five levels of (2, 720, H, W) logits. The stock
  head copies each level into rows, FusedRetinaHead hands the maps over as they lie.
- MaskFormer's mask loss: 20 masks of 128 x 128, (M, 1) logits and labels 0 for the mask, 1 for the rest.
- Mask R-CNN's mask loss: 256 instances, (256, 80, 28, 28) logits of which the label's channel counts; the plain way picks
  it by indexing.

Each contender is timed, forward and backward, only where its value and gradient agree with mmdet's loss in float64.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from _measure import Noise, peak_bytes, timed
from _results import MAPS, provenance, update
from benchmark import NOISE, count
from mmdet.models.losses import FocalLoss
from torch import Tensor

from focal_plugin.losses import FusedFocalLoss, FusedMaskFocalLoss
from focal_plugin.rows import Map

KEY = ('machine', 'device', 'work', 'contender')
TOLERANCE = 1e-5  # relative, to the value and to the largest gradient
TURN = 0.3  # seconds of a contender in one round
Step = Callable[[list[Tensor]], Tensor]


def retina(device: str) -> tuple[list[Tensor], dict[str, Step]]:
    """(the logits of all levels, the contenders)."""
    sizes, classes, anchors = (64, 32, 16, 8, 4), 80, 9
    torch.manual_seed(0)
    maps = [torch.randn(2, anchors * classes, size, size, device=device).sub_(4) for size in sizes]
    rows = [2 * anchors * size**2 for size in sizes]
    labels = [torch.where(torch.rand(n) < 0.002, torch.randint(0, classes, (n,)), classes).to(device) for n in rows]
    weights = [torch.ones(n, device=device) for n in rows]

    def summed(loss, hand_over: Callable) -> Step:
        def step(leaves: list[Tensor]) -> Tensor:
            levels = zip(leaves, labels, weights, strict=True)
            return sum(
                loss(hand_over(logits).permute(0, 2, 3, 1).reshape(-1, classes), label, weight, avg_factor=100.0)
                for logits, label, weight in levels
            )

        return step

    return maps, {
        'FusedRetinaHead': summed(FusedFocalLoss(), Map),
        'RetinaHead, FusedFocalLoss': summed(FusedFocalLoss(), lambda logits: logits),
        'RetinaHead, mmdet FocalLoss': summed(FocalLoss(), lambda logits: logits),
    }


def maskformer(device: str) -> tuple[list[Tensor], dict[str, Step]]:
    torch.manual_seed(0)
    logits, mask = torch.randn(20 * 128 * 128, 1, device=device), torch.rand(20 * 128 * 128, device=device) < 0.3
    labels = 1 - mask.long()

    def called(loss) -> Step:
        return lambda leaves: loss(leaves[0], labels, avg_factor=labels.numel())

    return [logits], {
        'FusedFocalLoss': called(FusedFocalLoss(loss_weight=20.0)),
        'mmdet FocalLoss': called(FocalLoss(loss_weight=20.0)),
    }


def mask_rcnn(device: str) -> tuple[list[Tensor], dict[str, Step]]:
    torch.manual_seed(0)
    n = 256
    logits = torch.randn(n, 80, 28, 28, device=device)
    masks = (torch.rand(n, 28, 28, device=device) < 0.4).float()
    labels = torch.randint(0, 80, (n,), device=device)
    fused, plain = FusedMaskFocalLoss(), FocalLoss()

    def indexed(leaves: list[Tensor]) -> Tensor:
        own = leaves[0][torch.arange(n, device=device), labels]
        return plain(own.reshape(-1, 1), 1 - masks.reshape(-1).long(), avg_factor=masks.numel())

    return [logits], {
        'FusedMaskFocalLoss': lambda leaves: fused(leaves[0], masks, labels),
        'indexing, mmdet FocalLoss': indexed,
    }


WORKS = {
    'RetinaNet, maps of 512 x 512': retina,
    'MaskFormer, 20 masks of 128 x 128': maskformer,
    'Mask R-CNN, 256 masks of 28 x 28': mask_rcnn,
}


def problem(step: Step, exact: Step, logits: list[Tensor]) -> str | None:
    """What is wrong with a contender's result."""

    def result(of: Step, leaves: list[Tensor]) -> tuple[float, Tensor]:
        value = of(leaves)
        return value.item(), torch.cat([grad.flatten() for grad in torch.autograd.grad(value.sum(), leaves)]).double()

    right, right_grad = result(exact, [each.double().requires_grad_() for each in logits])
    value, grad = result(step, [each.clone().requires_grad_() for each in logits])
    if not abs(value - right) <= TOLERANCE * abs(right):
        return f'its value is {value:g} where {right:g} is right'
    off = ((grad - right_grad).abs().max() / right_grad.abs().max()).item()
    return None if off <= TOLERANCE else f'its gradient is off by {off:.2g} of the largest'


def measured(logits: list[Tensor], steps: dict[str, Step], rounds: int, device: str) -> Iterator[dict]:
    """Medians of forward + backward and the peak memory; the contenders take turns."""
    leaves = [each.requires_grad_() for each in logits]
    size = sum(each.numel() * each.element_size() for each in leaves)

    def run(step: Step) -> None:
        torch.autograd.grad(step(leaves).sum(), leaves)

    times, runs, extra = {name: [] for name in steps}, {}, {}
    for turn in range(-1, rounds):  # the first round tells how many runs make a turn, and measures the memory
        for name, step in steps.items():
            time.sleep(0.01)  # threads of the previous contender may still spin
            if turn < 0:
                run(step)
                extra[name] = peak_bytes(device, lambda step=step: run(step))
                (once,) = timed(device, lambda step=step: run(step))
                runs[name] = max(1, min(200, int(1e3 * TURN / once)))
                continue
            for _ in range(runs[name]):
                times[name] += timed(device, lambda step=step: run(step))
    for name in steps:
        yield {
            'contender': name,
            'both_ms': f'{statistics.median(times[name]):.4g}',
            'extra_memory': '' if extra[name] is None else f'{extra[name] / size:.3g}',
            'runs': len(times[name]),
        }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--rounds', type=count, default=7, help='turns of each contender; default: %(default)s')
    parser.add_argument('--out', type=Path, default=MAPS, help='the CSV, whose rows of the same work are replaced')
    args = parser.parse_args(arguments)
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch sees no GPU here')
    source, wrong = provenance(args.device), 0
    print(', '.join(f'{name} {value or "absent"}' for name, value in source.items()))
    for work, make in WORKS.items():
        print(f'\n{work}, float32 on {args.device}', flush=True)
        logits, steps = make(args.device)
        *_, exact = steps.values()  # mmdet's formula
        for name, step in list(steps.items()):
            said = problem(step, exact, logits)
            if said is not None:
                wrong += 1
                del steps[name]
                print(f'  NOT TIMED: {name}: {said}')
        noise = Noise()
        rows = list(measured(logits, steps, args.rounds, args.device))
        for row in rows:
            print(f'  {row["contender"]:30}{row["both_ms"]:>10} ms{row["extra_memory"]:>8} logits{row["runs"]:>6} runs')
        share = noise.share()
        if share is not None and share > NOISE:
            print(f'  NOISY: other processes took {share:.0%} of the processors: measure again on a quiet machine')
        key = {'machine': source['machine'], 'device': args.device, 'work': work}
        update(args.out, [{**key, **row, **source} for row in rows], KEY)
    print(f'\nrows written to {args.out}')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
