"""Gradients of other arguments, second derivatives and torch.func: the loss as plain operations, exact at the ends."""

import math

import pytest
import torch
from torch.autograd import forward_ad

import focal_plugin
from focal_plugin import functional
from focal_plugin.math import SPECS
from tests.variants import VARIANTS

INF = math.inf
ALL = [name for name in SPECS]


def call(name: str, classes: int = 2, **arguments):
    """A variant's loss of logits, with labels for a target; (rows, classes) -> the loss."""
    given = VARIANTS[name].required(classes) | VARIANTS[name].of_logits

    def loss(pred, weight=None, target=None, **more):
        labels = torch.arange(pred.shape[:-1].numel()).reshape(pred.shape[:-1]) % classes
        target = labels if target is None else target
        return getattr(functional, SPECS[name].function)(pred, target, weight, **given, **arguments, **more)

    return loss


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('infinity', (INF, -INF))
def test_infinite_logits_have_their_gradient_beside_one_of_a_weight(any_backend, device, name, infinity):
    """The kernels give the limit; what differentiates more gives the same."""
    pred, weight = torch.tensor([[infinity, 1.0], [0.5, infinity]]), torch.tensor([1.0, 2.0])
    if not VARIANTS[name].point:  # over a softmax
        pred[1] = torch.tensor([0.5, -1.0])  # of several infinite logits in a row there is no one limit
    leaf = pred.clone().to(device).requires_grad_()
    labels = torch.tensor([0, 1], device=device)
    call(name)(leaf, weight.to(device), labels, reduction='sum').backward()
    again, by = pred.clone().requires_grad_(), weight.clone().requires_grad_()
    with focal_plugin.use_backend('torch'):
        loss = call(name)(again, by, reduction='sum')
    loss.backward()
    assert again.grad.isfinite().all() and not by.grad.isnan().any()
    torch.testing.assert_close(again.grad, leaf.grad.cpu(), rtol=1e-5, atol=1e-12)
    with focal_plugin.use_backend('torch'):
        (first,) = torch.autograd.grad(call(name)(again, weight, reduction='sum'), again, create_graph=True)
        torch.testing.assert_close(first.detach(), again.grad, rtol=1e-5, atol=1e-12)
        (second,) = torch.autograd.grad(first.sum(), again)
    assert second.isfinite().all()


def test_a_target_that_requires_a_gradient_at_the_ends():
    """log 0 stands in the power of what has underflowed."""
    x, y = torch.tensor([[-200.0, 200.0]]).requires_grad_(), torch.tensor([[0.0, 1.0]]).requires_grad_()
    functional.sigmoid_focal_loss(x, y, gamma=0.5, reduction='sum').backward()
    assert (x.grad == 0).all() and y.grad.isfinite().all()
    x, y = torch.tensor([[-60.0]]).requires_grad_(), torch.tensor([[0.0]]).requires_grad_()
    functional.sigmoid_focal_loss(x, y, gamma=0.5, alpha=None, reduction='sum').backward()
    p = math.exp(-60)  # d/dy m^.5 B at y = 0: .5 m^-.5 (1 - 2 p) p + m^.5 60
    assert float(y.grad) == pytest.approx(0.5 * p**0.5 + 60 * p**0.5, rel=1e-5)


def test_the_gradient_of_a_half_precision_weight_is_summed_before_it_is_rounded():
    x = torch.full((1, 1203), -8.0)
    weight = torch.ones(1, 1, dtype=torch.float16, requires_grad=True)
    functional.sigmoid_focal_loss(x, torch.tensor([1203]), weight, reduction='sum').backward()
    exact = functional.sigmoid_focal_loss(x.double(), torch.tensor([1203]), reduction='sum')
    assert float(exact) > 0 and float(weight.grad) == pytest.approx(float(exact), abs=2.0**-24)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
@pytest.mark.parametrize('name', [name for name in ALL if VARIANTS[name].point])
def test_the_gradient_of_a_half_precision_weight_of_a_class_is_rounded_once(name, dtype):
    """Where a class expands it over the rows, whose equal gradients would be rounded alike."""
    from focal_plugin.losses import CLASSES

    x = torch.linspace(-2, 2, 8).expand(3001, 8)
    target = torch.zeros(3001, dtype=torch.int64)
    given = VARIANTS[name].required_by_class(8)
    if not VARIANTS[name].labelled:  # of heat maps
        x, target = x.sigmoid(), torch.zeros(3001, 8)
    loss = CLASSES[name](reduction='sum', **given)
    found = []
    for weight in (torch.ones(1, 8, dtype=dtype), torch.ones(1, 8, dtype=torch.float64)):
        loss(x, target, weight=weight.requires_grad_()).backward()
        found.append(weight.grad)
    half, exact = found
    assert torch.equal(half, exact.to(dtype))


@pytest.mark.parametrize('name', [name for name in ALL if VARIANTS[name].point])
def test_the_gradient_of_an_expanded_weight_is_one_an_element(name):
    """Though its memory is one number, of which a row of weights could be taken for one."""
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    ones, found = torch.ones(3, 5, dtype=torch.float64), []  # float64: any other dtype is copied before
    for weight in (ones[0, 0].expand(3, 5), ones[:, :1].expand(3, 5), ones):
        leaf = weight.detach().requires_grad_()
        found += torch.autograd.grad(call(name, 5)(x, leaf, torch.tensor([0, 4, 5]), reduction='sum'), leaf)
    one, row, element = found
    assert torch.equal(one, element) and torch.equal(row, element)
    assert (element != 0).any(0).all()


def test_the_gradient_of_an_expanded_weight_beside_a_weight_of_classes():
    from focal_plugin.losses import FusedFocalLoss

    x, loss = (
        torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
        FusedFocalLoss(class_weight=[1.0, 2, 3, 4, 5]),
    )
    element = torch.ones(3, 5, dtype=torch.float64, requires_grad=True)
    leaves = element[0, 0].expand(3, 5).detach().requires_grad_(), element
    one, each = (torch.autograd.grad(loss(x, torch.tensor([0, 4, 5]), leaf), leaf)[0] for leaf in leaves)
    assert torch.equal(one, each)


def test_the_iou_aware_target_is_a_constant():
    score = torch.tensor([0.5], requires_grad=True)
    weight = torch.ones(1, requires_grad=True)
    loss = functional.iou_aware_bce_loss(torch.tensor([[2.0]]), (torch.tensor([0]), score), weight, reduction='sum')
    assert torch.autograd.grad(loss, score, allow_unused=True)[0] in (None, torch.zeros(1))


def test_the_gradient_of_a_heat_map_at_a_centre():
    target = torch.tensor([[1.0]], requires_grad=True)
    functional.gaussian_focal_loss(torch.zeros(1, 1), target, gamma=0.5, from_logits=True, reduction='sum').backward()
    assert float(target.grad) == 0


def test_the_second_derivative_of_the_star_loss():
    """sigmoid(20) is 1 - 2e-9, of which float32 keeps 1."""
    x = torch.tensor([[20.0]], requires_grad=True)
    loss = functional.sigmoid_focal_star_loss(x, torch.tensor([0]), reduction='sum')
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    p = 1 / (1 + math.exp(20))
    assert float(second) == pytest.approx(p * (1 - p), rel=1e-5)


@pytest.mark.parametrize('name', ALL)
def test_another_default_dtype_changes_nothing(name):
    pred = torch.randn(2, 2)
    plain = call(name)(pred, torch.ones(2, requires_grad=True))
    torch.set_default_dtype(torch.float64)
    try:
        wide = call(name)(pred, torch.ones(2, dtype=torch.float32, requires_grad=True))
    finally:
        torch.set_default_dtype(torch.float32)
    assert wide.dtype == plain.dtype == torch.float32 and wide == plain


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_composed_gradients_of_half_probabilities_saturate(dtype):
    p = torch.tensor([[0.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[1.0, 0.0]])
    loss = functional.sigmoid_focal_loss(p, target, torch.ones(1, requires_grad=True), activated=True, reduction='sum')
    (1e30 * loss).backward()
    largest = torch.finfo(dtype).max
    assert p.grad.tolist() == [[-largest, largest]]


@pytest.mark.parametrize('more', ('weight', 'create_graph'))
def test_statistics_are_gathered_whatever_else_is_differentiated(more):
    from focal_plugin.losses import FusedEqualizedFocalLoss

    loss, plain = (FusedEqualizedFocalLoss(num_classes=3) for _ in range(2))
    pred, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    leaf, weight = pred.clone().requires_grad_(), torch.rand(5)
    plain(leaf, labels, weight).backward()
    other = pred.clone().requires_grad_()
    by = weight.clone().requires_grad_(more == 'weight')
    loss(other, labels, by).backward(create_graph=more == 'create_graph')
    torch.testing.assert_close(loss.gradients, plain.gradients, rtol=1e-6, atol=0)
    assert (loss.gradients > 0).any()


@pytest.mark.sampled(interpreted=5)
@pytest.mark.parametrize('name', ALL)
@pytest.mark.filterwarnings('ignore:.*performance drop.*')
def test_transforms_of_functions(any_backend, device, name):
    if device != 'cpu':
        pytest.skip('on a GPU as here')
    pred = torch.randn(3, 2)

    def total(x):
        return call(name)(x, reduction='sum')

    leaf = pred.clone().requires_grad_()
    total(leaf).backward()
    tangent = torch.randn(3, 2)
    close = dict(rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(torch.func.grad(total)(pred), leaf.grad, **close)
    _, along = torch.func.jvp(total, (pred,), (tangent,))
    terms = leaf.grad * tangent  # of either sign: their sum may be far smaller
    torch.testing.assert_close(along, terms.sum(), rtol=1e-5, atol=1e-7 + 1e-5 * float(terms.abs().sum()))
    each = torch.func.vmap(torch.func.grad(lambda row: call(name)(row[None], reduction='sum')))(pred)
    rows = [row.clone().requires_grad_() for row in pred]
    sum(call(name)(row[None], reduction='sum') for row in rows).backward()
    torch.testing.assert_close(each, torch.stack([row.grad for row in rows]), **close)

    def unreduced(x):
        return call(name)(x, reduction='none')

    plain = torch.autograd.functional.jacobian(unreduced, pred)
    torch.testing.assert_close(torch.func.jacrev(unreduced)(pred), plain, **close)
    torch.testing.assert_close(torch.func.jacfwd(unreduced)(pred), plain, **close)
    torch.testing.assert_close(torch.autograd.functional.jacobian(unreduced, pred, vectorize=True), plain, **close)
    hessian = torch.func.hessian(total)(pred)
    torch.testing.assert_close(torch.autograd.functional.hessian(total, pred), hessian, rtol=1e-4, atol=1e-6)
    with forward_ad.dual_level():
        dual = total(forward_ad.make_dual(pred, tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, (leaf.grad * tangent).sum(), **close)


@pytest.mark.parametrize('name', ALL)
def test_a_batch_of_upstream_gradients(any_backend, device, name):
    if device != 'cpu':
        pytest.skip('on a GPU as here')
    leaf = torch.randn(2, 3, requires_grad=True)
    value = call(name, classes=3)(leaf, reduction='none')
    upstream = torch.randn(4, *value.shape)
    (batched,) = torch.autograd.grad(value, leaf, upstream, retain_graph=True, is_grads_batched=True)
    one_by_one = [torch.autograd.grad(value, leaf, each, retain_graph=True)[0] for each in upstream]
    torch.testing.assert_close(batched, torch.stack(one_by_one), rtol=1e-5, atol=1e-7)


def test_masks_and_vectors_under_a_transform():
    pred, target, labels = torch.randn(2, 3, 4), torch.rand(2, 4), torch.tensor([0, 2])
    leaf = pred.clone().requires_grad_()
    functional.mask_focal_loss(leaf, target, labels).backward()
    gradient = torch.func.grad(lambda x: functional.mask_focal_loss(x, target, labels))(pred)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-5, atol=1e-8)
    alpha = [0.1, 0.5, 0.9]
    x, y = torch.randn(2, 3), torch.tensor([0, 3])
    leaf = x.clone().requires_grad_()
    functional.sigmoid_focal_loss(leaf, y, alpha=alpha).backward()
    gradient = torch.func.grad(lambda x: functional.sigmoid_focal_loss(x, y, alpha=alpha))(x)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-5, atol=1e-8)
