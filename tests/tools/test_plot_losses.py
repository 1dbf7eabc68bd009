"""The sheet of all losses: every spec has its panels, the curves are the losses, the committed picture is of today's."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import focal_plugin
from focal_plugin.math import SPECS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('tools.plots.losses')


@pytest.fixture(scope='module')
def axes(tool):
    with focal_plugin.use_backend('torch'):
        return tool.draw().axes


def lines(axis) -> dict[str, torch.Tensor]:
    return {line.get_label(): torch.tensor(line.get_xydata()) for line in axis.get_lines()}


def test_every_loss_has_a_panel(axes):
    assert sorted(axis.get_title() for axis in axes[:-1:2]) == sorted(SPECS)
    for value, gradient in zip(axes[:-1:2], axes[1:-1:2], strict=True):
        assert {'positive', 'negative', 'cross-entropy'} <= lines(value).keys()
        assert len(value.get_lines()) == len(gradient.get_lines())
        assert all(torch.isfinite(line).all() for line in [*lines(value).values(), *lines(gradient).values()])
        # Both fall to the side of the right answer.
        assert lines(value)['positive'][-1, 1] < lines(value)['positive'][0, 1]
        assert lines(value)['negative'][0, 1] < lines(value)['negative'][-1, 1]


def test_focal_panel_is_the_formula(axes):
    value, gradient = axes[0], axes[1]
    assert value.get_title() == 'focal'
    x = lines(value)['positive'][:, 0].requires_grad_()
    p = torch.sigmoid(x)
    loss = -0.25 * (1 - p) ** 2 * p.log()
    assert torch.allclose(lines(value)['positive'][:, 1], loss)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    assert torch.allclose(torch.tensor(gradient.get_lines()[2].get_ydata()), slope)


def test_dashed_curves_are_explained(axes):
    for value in axes[:-1:2]:
        dashed = [line for line in value.get_lines() if line.get_linestyle() == '--']
        explained = any('dashed: ' in text.get_text() for text in value.texts)
        assert bool(dashed) is explained, value.get_title()


def test_figure_of_the_paper(axes):
    """At gamma = 2 an example with p_t = 0.9 has 100 times less loss than under cross-entropy (section 3.2)."""
    curves = list(lines(axes[-1]).values())
    near = (curves[0][:, 0] - 0.9).abs().argmin()
    p_t = curves[0][near, 0]
    assert curves[0][near, 1] / curves[3][near, 1] == pytest.approx(1 / (1 - p_t) ** 2)
    assert curves[0][near, 1] / curves[3][near, 1] == pytest.approx(100, rel=0.05)


@pytest.mark.slow
def test_picture(tmp_path):
    out = tmp_path / 'new/losses.png'
    command = [sys.executable, '-m', 'tools.plots.losses', '-o', out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == str(out)
    assert out.stat().st_size < 300_000


@pytest.mark.release
def test_committed_picture_shows_all_losses(tool):
    path = ROOT / 'tools/results/losses.png'
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert picture.text['losses'].split() == sorted(SPECS), 'run python -m tools.plots.losses'
