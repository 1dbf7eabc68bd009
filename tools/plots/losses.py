"""Draws value and gradient of every loss over the logit, and Figure 1 of arXiv 1708.02002, on one sheet.

Usage: python -m tools.plots.losses
"""

import argparse
import math
import textwrap
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

import focal_plugin
from focal_plugin.functional import FUNCTIONS
from focal_plugin.math import SPECS, Spec
from focal_plugin.math.spec import REQUIRED
from tools.benchmarks.results import ROOT

COLUMNS = 4
POSITIVE, NEGATIVE, REFERENCE = '#0072B2', '#D55E00', '#AAAAAA'
GAMMAS = {0: '#000000', 0.5: '#440154', 1: '#31688E', 2: '#35B779', 5: '#D9B800'}
QUALITY = 0.7
# Of two classes, in place of a default that says nothing about a class or is missing: the second one is rare.
TWO_CLASSES = {'samples_per_class': [300.0, 100.0], 'ratio': [1.0, 0.3]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / 'tools/results/losses.png'
    parser.add_argument('-o', '--out', type=Path, default=default, help='default: tools/results/losses.png')
    args = parser.parse_args()
    with focal_plugin.use_backend('torch'):
        figure = draw()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rendered = BytesIO()
    figure.savefig(rendered, dpi=110)
    # A palette makes a third of the size.
    picture = Image.open(rendered).convert('RGB').quantize(128)
    content = PngInfo()
    content.add_text('losses', ' '.join(sorted(SPECS)))
    picture.save(args.out, optimize=True, pnginfo=content)
    print(args.out)


def draw() -> Figure:
    """A panel per loss, and at the end the paper's figure."""
    lines = math.ceil((len(SPECS) + 2) / COLUMNS)
    height = 3.5 * lines + 0.8
    figure = Figure(figsize=(3.3 * COLUMNS, height))
    margins = dict(left=0.045, right=0.99, bottom=0.5 / height, top=1 - 1.15 / height)
    grid = figure.add_gridspec(lines, COLUMNS, wspace=0.14, hspace=0.42, **margins)
    first = None
    for index, name in enumerate(sorted(SPECS, key=lambda name: (name != 'focal', name))):
        cell = grid[index // COLUMNS, index % COLUMNS].subgridspec(2, 1, hspace=0.1)
        value = figure.add_subplot(cell[0], sharex=first, sharey=first)
        first = first or value
        gradient = figure.add_subplot(cell[1], sharex=first)
        draw_loss(value, gradient, SPECS[name])
        if index % COLUMNS == 0:
            value.set_ylabel('loss')
            gradient.set_ylabel('gradient')
    # The first part is room for its labels.
    draw_figure_1(figure.add_subplot(grid[-1, -2:].subgridspec(1, 2, width_ratios=(1, 20), wspace=0)[1]))
    handles = first.get_legend_handles_labels()
    figure.legend(*handles, loc='upper center', ncols=len(handles[0]), fontsize=11)
    return figure


def draw_loss(value: Axes, gradient: Axes, spec: Spec) -> None:
    logits = torch.linspace(-6, 6, 241, dtype=torch.float64)
    wrong = torch.sigmoid(-logits)
    for axis, pair in ((value, (-(1 - wrong).log(), -wrong.log())), (gradient, (-wrong, 1 - wrong))):
        for curve, label in zip(pair, ('cross-entropy', None), strict=True):
            axis.plot(logits, curve, color=REFERENCE, linewidth=1, label=label)
    for positive, dashed, losses, derivatives in curves(spec, logits):
        style = dict(color=POSITIVE if positive else NEGATIVE, linestyle='--' if dashed else '-', linewidth=1.8)
        label = None if dashed else 'positive' if positive else 'negative'
        value.plot(logits, losses, label=label, **style)
        gradient.plot(logits, derivatives, **style)
    value.set_title(spec.name, fontsize=11, fontweight='bold', pad=28)
    value.text(0.5, 1.03, subtitle(spec), transform=value.transAxes, ha='center', fontsize=8, color='#444444')
    value.set(ylim=(0, 4.2), yticks=range(5))
    value.tick_params(labelbottom=False)
    gradient.set(xlim=(-6, 6), ylim=(-1.35, 1.35), yticks=(-1, 0, 1), xticks=(-6, -3, 0, 3, 6))
    gradient.set_xlabel(f'logit{" of class 0 minus that of 1" * (spec.family == "rowwise")}', fontsize=9, labelpad=1)


def curves(spec: Spec, logits: Tensor) -> Iterator[tuple[bool, bool, Tensor, Tensor]]:
    """Of a positive, a negative, and the dashed case of the loss: whether it is positive, dashed, values and gradients."""
    arguments = {name: value for name, value in TWO_CLASSES.items() if name in spec.defaults}
    missing = [name for name, value in spec.defaults.items() if value is REQUIRED and name not in arguments]
    if missing:
        raise SystemExit(f'{spec.name}: {", ".join(missing)} has no default; add an example to TWO_CLASSES')
    if spec.probabilities == 'from_logits':
        arguments['from_logits'] = True
    classes = 2 if arguments.keys() & TWO_CLASSES or spec.family == 'rowwise' else 1

    def curve(target: Tensor, column: int, positive: bool, dashed: bool = False) -> tuple[bool, bool, Tensor, Tensor]:
        pred = torch.zeros(len(logits), classes, dtype=torch.float64)
        pred[:, column] = logits
        pred.requires_grad_()
        value = FUNCTIONS[spec.name](pred, target, reduction='none', **arguments)
        (gradient,) = torch.autograd.grad(value.sum(), pred)
        # The other class of two is at its logit 0 all along.
        value = (
            value if spec.family == 'rowwise' else value.reshape(len(logits), -1)[:, column if value.dim() > 1 else 0]
        )
        return positive, dashed, value.detach(), gradient[:, column]

    def label(value: int) -> Tensor:
        return torch.full((len(logits),), value)

    yield curve(label(0), 0, True)
    yield curve(label(1 if spec.family == 'rowwise' else classes), 0, False)
    if arguments.keys() & TWO_CLASSES:
        yield curve(label(1), 1, True, dashed=True)
    elif spec.scored:
        yield curve((label(0), torch.full((len(logits),), QUALITY, dtype=torch.float64)), 0, True, dashed=True)
    elif spec.form == 'dense':
        yield curve(torch.full((len(logits), 1), QUALITY, dtype=torch.float64), 0, False, dashed=True)


def subtitle(spec: Spec) -> str:
    """The defaults that are numbers, in two lines at most, and what the dashed curve shows."""
    numbers = {k: v for k, v in spec.defaults.items() if isinstance(v, float) and k not in TWO_CLASSES}
    lines = textwrap.wrap(', '.join(f'{name}={value:g}' for name, value in numbers.items()), 44)
    if 'samples_per_class' in spec.defaults:
        lines.append('dashed: a class with a third of the samples')
    elif 'ratio' in spec.defaults:
        lines.append(f'dashed: a class of ratio {TWO_CLASSES["ratio"][1]:g}')
    elif spec.scored:
        lines.append(f'dashed: a positive of quality {QUALITY:g}')
    elif spec.form == 'dense':
        lines.append(f'dashed: heat {QUALITY:g}')
    return '\n'.join(lines)


def draw_figure_1(axis: Axes) -> None:
    """Focal loss over the probability of the true class, without alpha, as in the paper."""
    p_t = torch.linspace(0.005, 0.9999, 400, dtype=torch.float64)
    positive = torch.zeros(len(p_t), dtype=torch.long)
    for gamma, colour in GAMMAS.items():
        loss = FUNCTIONS['focal'](torch.logit(p_t)[:, None], positive, gamma=gamma, alpha=None, reduction='none')
        axis.plot(p_t, loss[:, 0], color=colour, linewidth=2, label=f'$\\gamma$ = {gamma:g}')
    axis.axvspan(0.6, 1, color='#35B779', alpha=0.08)
    axis.text(0.8, 1.55, 'well classified', ha='center', fontsize=9, color='#1B6B45')
    axis.set(xlim=(0, 1), ylim=(0, 5), xlabel='$p_t$, probability of the true class', ylabel='loss')
    axis.set_title('focal loss without alpha (Figure 1 of arXiv 1708.02002)', fontsize=11, fontweight='bold')
    axis.legend(fontsize=9)


if __name__ == '__main__':
    main()
