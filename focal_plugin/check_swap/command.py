"""Shows what another classification loss changes in a config, and says what would silently train wrong.

Every loss_cls of the model, loss_center_heatmap and loss_heatmap is replaced by the registry class NAME; what stands beside
its type stays, as where your config inherits this one and writes loss_cls=dict(type=NAME). Both models are built on the CPU,
without pretrained weights, and take one training step from the same seed on two synthetic photos.

Exit status: 0 the loss fits, 1 it does not, or would silently train wrong, 2 wrong usage.
"""

from __future__ import annotations
import argparse
import logging
import warnings

from mmengine.config import DictAction

from focal_plugin.check_swap import sites, training_step
from focal_plugin.check_swap.report import Report, check
from focal_plugin.check_swap.request import Loss, UsageError, parse_loss, read_config
from focal_plugin.check_swap.training_step import Step


def table(before: str, after: str, steps: tuple[Step, Step]) -> str:
    rows: list[tuple[str, ...]] = [('', before, after)]
    for name in dict.fromkeys(name for step in steps for name in step.losses):
        rows.append((name, *(number(step.losses.get(name)) for step in steps)))
    for name in dict.fromkeys(name for step in steps for name in step.norms):
        title = 'gradient norm' if name == 'all' else f'gradient norm, {name}'
        rows.append((title, *(number(step.norms.get(name)) for step in steps)))
    rows.append(('time of the step (ms)', *(f'{step.milliseconds:.0f}' for step in steps)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def show(path: str, before: str, loss: Loss, report: Report) -> None:
    print(f'== {path} with {loss.text}\n{report.diff}')
    for name, (was, now) in report.heads.items():
        print(f'\n== {name}: {was}' + (f'\n   becomes {now}' if now != was else ''))
        calls = report.steps[1].calls if report.steps else {}
        for key in (key for key in calls if key.rpartition('.')[0] == name):
            print(f'   calls {key.rpartition(".")[2]} {calls[key]}')
    if report.steps:
        size = training_step.SIZE
        print(f'\n== one training step, 2 photos of {size} x {size}, seed 0\n{table(before, loss.text, report.steps)}')
    for title, sentences in (('to know', report.notes), ('wrong', report.refusals)):
        if sentences:
            print(f'\n== {title}\n' + '\n'.join(f'- {sentence}' for sentence in sentences))
    print(f'\n{loss.name} {"does not fit" if report.refusals else "fits"}')


def add_to(subparsers) -> None:
    """Adds the subcommand check-swap to a parser's."""
    parser = subparsers.add_parser(
        'check-swap',
        help='what another classification loss changes in a config, and what would silently train wrong',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='the config of a detector')
    parser.add_argument(
        '--loss', required=True, metavar='NAME', help='a registry class; NAME,key=value,... with arguments'
    )
    parser.add_argument('--only', default='', metavar='PATH', help='swap only here, as in roi_head.bbox_head')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='changes of the config'
    )
    parser.set_defaults(run=run, error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Checks and prints; returns the exit status."""
    # What a loss warns about stands in the report; mmengine logs every weight that it initialises.
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    try:
        config = read_config(args.config, args.cfg_options)
        loss = parse_loss(args.loss)
    except UsageError as error:
        args.error(str(error))
    kinds = [sites.type_name(site.loss.type) for site in sites.of_model(config.model, args.only)]
    report = check(config, loss, args.only)
    show(args.config, ' + '.join(dict.fromkeys(kinds)), loss, report)
    return 1 if report.refusals else 0
