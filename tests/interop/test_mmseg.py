"""mmsegmentation: its FocalLoss beside ours where it is installed, its registry and the call of its heads everywhere."""

import importlib.util

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from focal_plugin.segmentation import FusedSegFocalLoss
from tests.oracle.check_segmentation import definition
from tests.processes import run

SHAPE = (2, 5, 6, 7)
ALPHA, CLASSES = [0.1, 0.25, 0.5, 0.75, 0.9], [1.0, 2.0, 0.0, 0.5, 3.0]
ARGUMENTS = {
    'the defaults': {},
    'other numbers': dict(gamma=1.5, alpha=0.25, loss_weight=0.4),
    'per class': dict(alpha=ALPHA, class_weight=CLASSES),
}


@pytest.fixture(scope='module')
def registry() -> Registry:
    """mmseg's, or one of a stand-in."""
    if importlib.util.find_spec('mmseg') is not None:
        from mmseg.registry import MODELS as theirs

        return theirs
    return Registry(MODELS.name, parent=MODELS, scope='stand_in_for_mmseg', locations=[])


@pytest.fixture
def theirs():
    """The module of mmseg's FocalLoss."""
    return pytest.importorskip('mmseg.models.losses.focal_loss', reason='needs mmseg, which is not installed')


def both(ours, theirs, pred, target, *call, as_theirs=None, **named):
    """Both losses of a call, and both gradients, close to each other."""
    found = []
    for loss, given in ((ours, target), (theirs, target if as_theirs is None else as_theirs)):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, given, *call, **named)
        value.backward(torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape))
        found.append((value.detach(), leaf.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_plain_name_is_found_from_every_scope(registry):
    for scope, one in ((registry.scope, registry), ('mmdet', MMDET_MODELS), ('mmengine', MODELS)):
        with DefaultScope.overwrite_default_scope(scope):
            built = one.build(dict(type='FusedSegFocalLoss', alpha=ALPHA))
            assert type(built) is FusedSegFocalLoss and built.alpha == ALPHA


def test_it_needs_no_mmdet():
    code = """
import importlib.util, sys
sys.modules['mmdet'] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == 'mmdet' else find(name, *a)
import focal_plugin, torch
from mmengine.registry import MODELS
loss = MODELS.build(dict(type='FusedSegFocalLoss'))
print(float(loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long())))
"""
    assert float(run(code)) == pytest.approx(0.5 * 0.25 * 0.6931471805599453)


class Head(nn.Module):
    """Asks of its losses what mmseg's decode heads ask of theirs: BaseDecodeHead.loss_by_feat."""

    def __init__(self, registry: Registry, losses: list[dict]) -> None:
        super().__init__()
        self.ignore_index, self.loss_decode = 255, nn.ModuleList(map(registry.build, losses))

    def losses(self, logits, labels, weight) -> dict:
        found = {}
        for loss in self.loss_decode:
            value = loss(logits, labels.squeeze(1), weight=weight, ignore_index=self.ignore_index)
            found[loss.loss_name] = found[loss.loss_name] + value if loss.loss_name in found else value
        return found


def test_a_head_adds_its_losses_by_their_names(registry):
    config = dict(type='FusedSegFocalLoss', use_sigmoid=True)
    with DefaultScope.overwrite_default_scope(registry.scope):
        head = Head(registry, [config, dict(config, loss_weight=3.0), dict(config, gamma=0.0, loss_name='loss_bce')])
    logits, labels = torch.randn(SHAPE), torch.randint(0, 5, (2, 1, 6, 7))
    labels[:, :, 0] = 255
    for weight in (None, torch.rand(2, 6, 7)):
        found = head.losses(logits, labels, weight)
        same = 1.0 if weight is None else weight.unsqueeze(1)
        focal, entropy = (
            definition(logits, labels.squeeze(1), same, gamma=gamma, reduction='mean').value for gamma in (2.0, 0.0)
        )
        assert {name: float(value) for name, value in found.items()} == {
            'loss_focal': pytest.approx(4 * focal, rel=1e-5),
            'loss_bce': pytest.approx(entropy, rel=1e-5),
        }


def test_what_a_config_inherits_from_the_cross_entropy_is_refused_until_it_is_deleted(registry, tmp_path):
    base = "model = dict(loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4))\n"
    (tmp_path / 'base.py').write_text(base)
    for start, refused in (('', True), ('_delete_=True, ', False)):
        text = f"_base_ = './base.py'\nmodel = dict(loss_decode=dict({start}type='FusedSegFocalLoss'))\n"
        (tmp_path / 'config.py').write_text(text)
        loss = Config.fromfile(tmp_path / 'config.py').model.loss_decode
        with DefaultScope.overwrite_default_scope(registry.scope):
            if refused:
                with pytest.raises(ValueError, match='_delete_=True'):
                    registry.build(loss)
            else:
                assert registry.build(loss).loss_weight == 1.0


WEIGHTS = {
    'no weight': lambda: None,
    'per pixel': lambda: torch.rand(84),
    'a column of rows': lambda: torch.rand(84, 1),
    'rows of classes': lambda: torch.rand(84, 5),
    'a row of classes': lambda: torch.rand(1, 5),
}


@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
@pytest.mark.parametrize('weight', WEIGHTS)
@pytest.mark.parametrize('arguments', ARGUMENTS.values(), ids=ARGUMENTS)
def test_dense_targets_give_mmsegs_values(theirs, arguments, weight, reduction):
    pred, call = torch.randn(SHAPE), (WEIGHTS[weight](), *([9.0] if reduction == 'mean' else [None]), reduction)
    for target in (torch.rand(SHAPE), (torch.rand(SHAPE) > 0.7).long()):
        both(FusedSegFocalLoss(**arguments), theirs.FocalLoss(**arguments), pred, target, *call)


@pytest.mark.parametrize('shape', [SHAPE, (30, 5), (3, 5, 11), (2, 1, 6, 7)], ids=str)
@pytest.mark.parametrize('arguments', list(ARGUMENTS.values())[:2], ids=list(ARGUMENTS)[:2])
def test_labels_give_what_mmseg_gives_on_a_gpu(theirs, monkeypatch, shape, arguments):
    """There mmcv's kernel works on them; here it does on the CPU."""
    _check_labels(theirs, monkeypatch, shape, arguments)


def test_labels_with_values_per_class_give_what_mmseg_gives_on_a_gpu(theirs, monkeypatch):
    _check_labels(theirs, monkeypatch, SHAPE, ARGUMENTS['per class'])


def _check_labels(theirs, monkeypatch, shape, arguments):
    from tests.interop import mmcv_kernel

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(context, pred, target, gamma, alpha):
            context.save_for_backward(pred, target)
            context.numbers = gamma, alpha
            with monkeypatch.context() as patch:
                patch.setattr(torch.Tensor, 'is_cuda', False)
                return mmcv_kernel.forward(pred, target, None, gamma, alpha)

        @staticmethod
        def backward(context, upstream):
            return upstream * mmcv_kernel.backward(*context.saved_tensors, None, *context.numbers), None, None, None

    def as_on_a_gpu(pred, target, *call, **named):
        with monkeypatch.context() as patch:
            patch.setattr(
                theirs,
                '_sigmoid_focal_loss',
                lambda pred, target, gamma, alpha, *_: Op.apply(pred, target, gamma, alpha),
            )
            patch.setattr(torch.cuda, 'is_available', lambda: True)
            patch.setattr(torch.Tensor, 'is_cuda', True)
            return theirs.FocalLoss(**arguments)(pred, target, *call, **named)

    # Further out mmcv's 1 - p is off by more than 1e-5 in float32.
    pred, labels = torch.randn(shape).clamp(-4, 4), torch.randint(0, shape[1] + 1, (shape[0], *shape[2:]))
    labels[0] = 255
    for reduction in ('none', 'mean', 'sum'):
        both(FusedSegFocalLoss(**arguments), as_on_a_gpu, pred, labels, reduction_override=reduction)


def test_labels_on_a_cpu_are_an_error_of_mmsegs(theirs):
    """It takes channel C of their one-hot where it means the channels below C: dense targets are what it can be asked of."""
    for classes in (5, 1):
        with pytest.raises((RuntimeError, ValueError)):
            theirs.FocalLoss()(torch.randn(2, classes, 6, 7), torch.zeros(2, 6, 7).long())
