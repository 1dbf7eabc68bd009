"""What happens to a loss as a part of a model: saved, copied, cast, moved, compiled; for every registry class."""

import copy
import pickle

import pytest
import torch
from torch import nn

from focal_plugin import losses
from focal_plugin.losses import FusedEqualizedFocalLoss, FusedLoss
from tests.conftest import one_graph
from tests.variants import VARIANTS

N, C = 24, 5
VECTOR = [0.1, 0.2, 0.3, 0.4, 0.7]
KINDS = {
    name: kind
    for name, kind in vars(losses).items()
    if isinstance(kind, type) and issubclass(kind, FusedLoss) and 'spec' in vars(kind)
}
REQUIRED = {variant.kind: variant.required_by_class(C) for variant in VARIANTS.values()}
REQUIRED['FusedFocalCustomLoss'] = dict(num_classes=C)
HEAT_MAPS = [variant.kind for variant in VARIANTS.values() if not variant.labelled]


def built(name):
    """With every argument a vector that can be one, so that it is a buffer."""
    kind = KINDS[name]
    vectors = {p.name: VECTOR for p in kind.spec.parameters if p.vector and p.name not in kind.withheld}
    weights = dict(class_weight=VECTOR, ignore_index=-1) if kind.labelled else {}
    return kind(**REQUIRED.get(name, {}), **vectors, **weights)


def batch(name, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    pred, labels = torch.randn(N, C, generator=generator), torch.arange(N) % C
    if name in HEAT_MAPS:
        return pred.sigmoid().to(dtype), torch.nn.functional.one_hot(labels, C).float()
    if name == 'FusedMaskFocalLoss':
        return pred.to(dtype), (pred > 0).float()
    return pred.to(dtype), labels


def train(loss, pred, target):
    leaf = pred.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    return value.detach(), leaf.grad, [*loss.buffers()]


def saved(loss, path):
    torch.save(nn.Sequential(loss), path / 'model.pt')
    return torch.load(path / 'model.pt', weights_only=False)[0]


COPIES = {
    'torch.save': saved,
    'pickle': lambda loss, _: pickle.loads(pickle.dumps(loss)),
    'deepcopy': lambda loss, _: copy.deepcopy(loss),
}


@pytest.mark.parametrize('copied', COPIES.values(), ids=COPIES)
@pytest.mark.parametrize('name', KINDS)
def test_copies_go_on_as_the_original(name, copied, tmp_path):
    """After a step, so that the equalized loss has sums to take along; two steps more."""
    loss, (pred, target) = built(name), batch(name)
    train(loss, pred, target)
    other = copied(loss, tmp_path)
    assert type(other) is type(loss) and other is not loss and repr(other) == repr(loss)
    for _ in range(2):
        torch.testing.assert_close(train(other, pred, target), train(loss, pred, target), rtol=0, atol=0)


def test_a_copy_of_the_equalized_loss_has_ratios_of_its_own(tmp_path):
    """The hook that follows a checkpoint is the copy's."""
    loss = built('FusedEqualizedFocalLoss')
    for copied in COPIES.values():
        other = copied(loss, tmp_path)
        other.load_state_dict({'gradients': torch.tensor([[1.0] * C, [2.0] * C], dtype=torch.float64)})
        assert (other.ratio == 0.5).all() and (loss.ratio == 1.0).all()


CASTS = {
    'half': lambda model: model.half(),
    'bfloat16': lambda model: model.bfloat16(),
    'float': lambda model: model.float(),
    'double': lambda model: model.double(),
    'to(dtype)': lambda model: model.to(torch.float16),
    'type': lambda model: model.type(torch.bfloat16),
}


@pytest.mark.parametrize('cast', CASTS.values(), ids=CASTS)
@pytest.mark.parametrize('name', KINDS)
def test_buffers_keep_their_dtype_and_their_numbers(name, cast):
    model = nn.Sequential(nn.Linear(2, 2), built(name))
    loss = model[1]
    train(loss, *batch(name))
    before = {key: buffer.clone() for key, buffer in loss.named_buffers()}
    weight = cast(model)[0].weight
    assert weight.dtype == cast(torch.zeros(())).dtype  # the model itself is cast
    after = dict(loss.named_buffers())
    assert after.keys() == before.keys()
    for key, buffer in after.items():
        assert buffer.dtype == before[key].dtype and torch.equal(buffer, before[key])


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize('name', KINDS)
def test_trains_after_a_cast(name, dtype):
    """A model of halves hands over halves; three steps, the equalized loss's sums included, as if it never was cast."""
    cast, plain = built(name).to(dtype), built(name)
    for _ in range(3):
        torch.testing.assert_close(train(cast, *batch(name, dtype)), train(plain, *batch(name, dtype)), rtol=0, atol=0)


@pytest.mark.parametrize('name', KINDS)
def test_buffers_move(name):
    loss = built(name)
    kept = {key: buffer.dtype for key, buffer in loss.named_buffers()}
    for moved in (copy.deepcopy(loss).to('meta'), copy.deepcopy(loss).to('meta', torch.float16)):
        assert {key: (buffer.device.type, buffer.dtype) for key, buffer in moved.named_buffers()} == {
            key: ('meta', dtype) for key, dtype in kept.items()
        }
        back = moved.to_empty(device='cpu')
        assert {key: (buffer.device.type, buffer.dtype) for key, buffer in back.named_buffers()} == {
            key: ('cpu', dtype) for key, dtype in kept.items()
        }


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.loss = nn.Linear(4, C), FusedEqualizedFocalLoss(C)

    def forward(self, features, labels):
        return 2 * self.loss(self.layer(2 * features), labels, avg_factor=3.0)


@one_graph
def test_the_equalized_loss_stays_outside_of_compiled_graphs():
    """Its statistics need autograd's hooks: torch.compile breaks the graph there and goes on behind it."""
    compiled, plain, graphs = Head(), Head(), []

    def backend(module, _):
        graphs.append([str(node.target) for node in module.graph.nodes if node.op.startswith('call')])
        return module.forward

    step = torch.compile(compiled, backend=backend)
    for seed in range(3):
        features, labels = torch.randn(N, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(N) % (C + 1)
        values = [module(features, labels) for module in (step, plain)]
        for value in values:
            value.backward()
        torch.testing.assert_close(*values, rtol=0, atol=0)
        torch.testing.assert_close(compiled.loss.gradients, plain.loss.gradients, rtol=0, atol=0)
    before, behind = graphs
    assert any('linear' in target for target in before)
    assert [target for target in behind if 'mul' not in target] == []
    assert (plain.loss.gradients > 0).any()
