"""Rows that stand for a tensor that is not made: what they know is the tensor's, and what they do not know is an error."""

import pytest
import torch
from torch import Tensor

from focal_plugin.images import Images, OfImage
from focal_plugin.losses import FusedFocalLoss, FusedPolyFocalLoss, FusedQualityFocalLoss
from focal_plugin.maps import Map
from focal_plugin.rows import Rows, Scored

CLASSES = 7
SIZES = ((16, 20), (8, 10), (4, 5))


def rows_and_tensor(anchors: int = 3, **given) -> tuple[Rows, Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, anchors * CLASSES, *size, generator=generator) for size in SIZES]
    plain = torch.cat([each.permute(0, 2, 3, 1).reshape(-1, CLASSES) for each in maps])
    return Rows(maps, CLASSES, **given), plain


@pytest.mark.parametrize('reduction', ('none', 'mean', 'sum'))
@pytest.mark.parametrize('weight', ('none', 'row', 'column', 'element', 'flat', 'class'))
@pytest.mark.parametrize('kind', (FusedPolyFocalLoss, FusedQualityFocalLoss))
def test_a_loss_of_rows_is_that_of_the_tensor_that_they_stand_for(reduction, weight, kind):
    rows, plain = rows_and_tensor()
    generator = torch.Generator().manual_seed(1)
    n = len(plain)
    assert torch.equal(rows.tensor(), plain)
    weights = {
        'none': None,
        'row': torch.rand(n, generator=generator),
        'column': torch.rand(n, 1, generator=generator),
        'element': torch.rand(n, CLASSES, generator=generator),
        'flat': torch.rand(n * CLASSES, generator=generator),
        'class': torch.rand(1, CLASSES, generator=generator),
    }
    target = torch.randint(0, CLASSES + 1, (n,), generator=generator)
    if kind is FusedQualityFocalLoss:
        target = (target, torch.rand(n, generator=generator))
    loss = kind(reduction=reduction)
    got, want = loss(rows, target, weights[weight]), loss(plain, target, weights[weight])
    torch.testing.assert_close(got, want, rtol=5e-6, atol=1e-9)


def test_dense_targets_and_a_tensor_as_divisor():
    rows, plain = rows_and_tensor()
    dense, loss = torch.rand_like(plain), FusedFocalLoss()
    divisor = torch.tensor([3.0])
    got = loss(rows, dense, avg_factor=divisor)
    assert got.shape == (1,)
    torch.testing.assert_close(got, loss(plain, dense, avg_factor=divisor), rtol=5e-6, atol=0)


def test_targets_of_another_number_of_rows():
    rows = Rows([torch.randn(1, 6, 2, 2)], 3)
    with pytest.raises(ValueError, match=r'8 rows of logits, but a target or weight of shape \(7,\)'):
        FusedFocalLoss()(rows, torch.zeros(7, dtype=torch.int64))


def test_what_heads_do_to_their_logits_leaves_them_where_they_lie():
    """The lines of mmdet's heads, .contiguous() of ATSS and VFNet among them."""
    levels = [torch.randn(2, 3 * CLASSES, *size, requires_grad=True) for size in SIZES]
    each = [Map(level).permute(0, 2, 3, 1).reshape(-1, CLASSES).contiguous() for level in levels]
    rows = torch.cat(each)[:, :CLASSES]
    plain = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, CLASSES) for level in levels])
    assert isinstance(rows, Rows)
    assert all(a is b for a, b in zip(rows.maps, levels, strict=True))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(rows.detach().maps, levels, strict=True))
    assert rows.requires_grad and not rows.detach().requires_grad
    assert torch.equal(rows.tensor(), plain)


@pytest.mark.parametrize('stage', ('a map', 'permuted', 'rows'))
def test_metadata_is_that_of_the_tensor(stage):
    logits = torch.randn(2, 6, 4, 5, dtype=torch.bfloat16, requires_grad=True)
    lazy, plain = Map(logits), logits
    if stage != 'a map':
        lazy, plain = lazy.permute(0, 2, 3, 1), plain.permute(0, 2, 3, 1)
    if stage == 'rows':
        lazy, plain = lazy.reshape(-1, 3), plain.reshape(-1, 3)
    assert lazy.shape == lazy.size() == plain.shape
    assert lazy.size()[-2:] == plain.size()[-2:] and lazy.size(-1) == plain.size(-1)
    assert (lazy.dim(), lazy.numel(), lazy.dtype) == (plain.dim(), plain.numel(), plain.dtype)
    assert (lazy.device, lazy.requires_grad) == (plain.device, plain.requires_grad)


PICKED = {
    'a mask': lambda n: torch.arange(n) % 5 == 2,
    'a mask of none': lambda n: torch.zeros(n, dtype=torch.bool),
    'indices in order': lambda n: torch.arange(0, n, 7),
    'indices across the levels in any order, some twice': lambda n: torch.tensor([n - 1, 0, n // 2, 3, 0, n - 1]),
    'no indices': lambda n: torch.empty(0, dtype=torch.int64),
}


@pytest.mark.parametrize('make', PICKED.values(), ids=PICKED)
def test_picked_rows_are_those_of_the_tensor(make):
    rows, plain = rows_and_tensor()
    index = make(len(plain))
    assert torch.equal(rows[index], plain[index])
    probabilities = rows.detach().sigmoid()
    assert torch.equal(probabilities[index], plain[index].sigmoid())
    if len(plain[index]):
        for got, want in zip(probabilities.max(dim=1), plain.sigmoid().max(dim=1), strict=True):
            torch.testing.assert_close(got[index], want[index], rtol=1e-6, atol=0)


def test_picked_rows_give_their_gradient_back():
    level = torch.randn(2, 3 * CLASSES, 4, 5, requires_grad=True)
    index = torch.tensor([5, 0, 5])
    (got,) = torch.autograd.grad((Rows([level], CLASSES)[index] * torch.arange(1.0, 4)[:, None]).sum(), level)
    plain = level.permute(0, 2, 3, 1).reshape(-1, CLASSES)
    (want,) = torch.autograd.grad((plain[index] * torch.arange(1.0, 4)[:, None]).sum(), level)
    assert torch.equal(got, want)


@pytest.mark.parametrize('index', (torch.tensor([0, 10**6]), torch.tensor([-1]), torch.tensor([True, False])), ids=str)
def test_rows_that_do_not_exist(index):
    rows, _ = rows_and_tensor()
    with pytest.raises(IndexError, match='rows'):
        rows[index]


def images_and_tensor(anchors: int = 3) -> tuple[Images, Tensor]:
    """As RTMDet, TOOD and DDOD join their levels: by image."""
    maps = [torch.randn(2, anchors * CLASSES, *size, requires_grad=True) for size in SIZES]
    lazy, plain = (
        torch.cat([kind(level).permute(0, 2, 3, 1).reshape(2, -1, CLASSES) for level in maps], 1)
        for kind in (Map, torch.Tensor.clone)
    )
    assert isinstance(lazy, Images)
    return lazy, plain


@pytest.mark.parametrize('anchors', (1, 3))
def test_what_assigners_look_at_is_what_they_would_find(anchors):
    images, plain = images_and_tensor(anchors)
    assert len(list(images)) == 2
    for image, tensor in zip(images.detach(), plain.detach(), strict=True):
        assert (len(image), image.shape, image.requires_grad) == (len(tensor), tensor.shape, False)
        valid, labels = torch.arange(len(tensor)) % 7 != 3, torch.tensor([6, 0, 6])
        inside = image[valid, :]
        assert isinstance(inside, OfImage) and inside.shape == tensor[valid].shape
        for lazy, whole in ((image, tensor), (inside, tensor[valid])):
            assert torch.equal(lazy[:, labels], whole[:, labels])
            assert lazy[:, labels[:0]].shape == (len(whole), 0)
            for make in PICKED.values():
                assert torch.equal(lazy[make(len(whole))], whole[make(len(whole))])
        again = inside[torch.arange(5), :]
        assert torch.equal(again[:, labels], tensor[valid][:5][:, labels])


def test_the_levels_of_an_image_joined():
    """As DDOD does it, which takes an image of each level first."""
    images, plain = images_and_tensor()
    each = [Images(Rows([level], CLASSES)) for level in images.rows.maps]
    for image in (0, 1):
        joined = torch.cat([level[image] for level in each], dim=0)
        assert isinstance(joined, OfImage)
        assert torch.equal(joined[torch.arange(len(joined))], plain[image])


def test_rows_of_an_image_give_their_gradient_back():
    images, plain = images_and_tensor()
    index = torch.tensor([5, 0, 5])
    of_index, of_labels = torch.arange(1.0, 4)[:, None], torch.arange(1.0, 3)
    labels = torch.tensor([1, 4])
    got, want = (
        torch.autograd.grad((of[1][index] * of_index).sum() + (of[0][:, labels] * of_labels).sum(), images.rows.maps)
        for of in (images, plain)
    )
    assert all(map(torch.equal, got, want))


@pytest.mark.parametrize('dtype', (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_dense_targets_of_a_loss_of_quality_are_labels_and_scores(dtype):
    """What VFNet does: zeros of the logits' size, of which it sets the label's element of each positive."""
    rows = Rows([torch.randn(2, CLASSES, *size, dtype=dtype) for size in SIZES], CLASSES, scored=True)
    targets, dense = torch.zeros_like(rows), torch.zeros(rows.shape)
    assert isinstance(targets, Scored)
    places, values = (torch.tensor([3, 0, 100]), torch.tensor([6, 0, 2])), torch.tensor([0.5, 1e-6, 1.0])
    targets[places] = values
    dense[places] = values
    assert targets.scores.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    positive = targets.labels < CLASSES
    assert torch.equal(positive, dense.amax(1) > 0)
    assert torch.equal(targets.labels[positive], dense.argmax(1)[positive])
    assert torch.equal(targets.scores.float(), dense.amax(1))


def test_dense_targets_of_another_loss_are_a_tensor():
    rows, plain = rows_and_tensor()
    assert torch.equal(torch.zeros_like(rows), torch.zeros_like(plain))


LAZY = {
    'map': lambda: Map(torch.randn(2, 6, 4, 5)),
    'permuted': lambda: Map(torch.randn(2, 6, 4, 5)).permute(0, 2, 3, 1),
    'rows': lambda: Rows([torch.randn(2, 6, 4, 5)], 3),
    'probabilities': lambda: Rows([torch.randn(2, 6, 4, 5)], 3).sigmoid(),
    'images': lambda: Images(Rows([torch.randn(2, 6, 4, 5)], 3)),
    'of an image': lambda: OfImage(Rows([torch.randn(2, 6, 4, 5)], 3), 0),
}
METADATA = {'shape', 'size', 'dim', 'numel', 'dtype', 'device', 'requires_grad'}
KNOWN = {
    'map': METADATA | {'permute'},
    'permuted': METADATA | {'reshape'},
    'rows': METADATA | {'contiguous', 'detach', 'new_tensor', 'sigmoid', '__getitem__'},
    'probabilities': {'max', '__getitem__'},
    'images': {'detach', '__getitem__', '__iter__'},
    'of an image': METADATA | {'__getitem__', '__len__'},
}
OPERATORS = [name for name in dir(Tensor) if name.startswith('__') and name not in dir(object)]
COMPARISONS = ['__lt__', '__le__', '__eq__', '__ne__', '__gt__', '__ge__']


@pytest.mark.parametrize('kind', LAZY)
def test_no_other_method_of_a_tensor_is_answered(kind):
    """Not by a copy without a word, as .contiguous() once was, nor by what Python says of any object."""
    lazy = LAZY[kind]()
    methods = {name for name in dir(Tensor) if not name.startswith('_')}
    assert {name for name in methods if hasattr(lazy, name)} == {
        name for name in KNOWN[kind] if not name.startswith('_')
    }
    for name in methods - KNOWN[kind]:
        with pytest.raises(AttributeError, match=rf'^{name} is not known .* Go back to the stock head'):
            getattr(lazy, name)
    called = [name for name in OPERATORS if callable(getattr(Tensor, name)) and '__torch_' not in name] + COMPARISONS
    assert {'__add__', '__rmatmul__', '__bool__', '__len__', '__iter__', '__eq__'} <= set(called)
    for name in set(called) - KNOWN[kind]:
        with pytest.raises(TypeError, match=rf'^{name} is not known .* Go back to the stock head'):
            getattr(lazy, name)(2)


REFUSED = {
    'a function of torch': (lambda rows, plain: torch.sigmoid(rows), 'sigmoid'),
    'a function of torch.nn': (lambda rows, plain: torch.nn.functional.softplus(rows), 'softplus'),
    'an operator': (lambda rows, plain: rows * 2, '__mul__'),
    'an operator of a tensor': (lambda rows, plain: plain - rows, '__?r?sub'),
    'an operator from the right': (lambda rows, plain: 2 * rows, '__rmul__'),
    'a comparison, which Python would answer': (lambda rows, plain: rows == 0, '__eq__'),
    'a condition, which Python would answer': (lambda rows, plain: bool(rows), '__bool__'),
    'joined with a tensor': (lambda rows, plain: torch.cat([rows, plain]), 'cat'),
    'joined along the classes': (lambda rows, plain: torch.cat([rows, rows], dim=1), 'cat'),
    'joined with other classes': (lambda rows, plain: torch.cat([rows, Rows(rows.maps, 1)]), 'cat'),
    'zeros of another dtype': (lambda rows, plain: torch.zeros_like(rows, dtype=torch.int64), 'zeros_like'),
    'some classes': (lambda rows, plain: rows[:, 1:], '__getitem__'),
    'a row': (lambda rows, plain: rows[0], '__getitem__'),
    'single elements': (lambda rows, plain: rows[torch.tensor([0]), torch.tensor([1])], '__getitem__'),
    'the greatest of a column': (lambda rows, plain: rows.sigmoid().max(dim=0), 'max'),
    'images joined with a tensor': (lambda rows, plain: torch.cat([Images(rows), plain[None]], 1), 'cat'),
    'images joined as images': (lambda rows, plain: torch.cat([Images(rows), Images(rows)]), 'cat'),
    'another image': (lambda rows, plain: Images(rows)[2], '__getitem__'),
    'two images joined': (lambda rows, plain: torch.cat(list(Images(rows))), 'cat'),
    'rows of an image joined': (lambda rows, plain: torch.cat([OfImage(rows, 0)[torch.arange(2), :]] * 2), 'cat'),
    'the first rows of an image': (lambda rows, plain: OfImage(rows, 0)[:5], '__getitem__'),
    'elements of an image': (lambda rows, plain: OfImage(rows, 0)[torch.tensor([0]), torch.tensor([1])], '__getitem__'),
    'all of an image': (lambda rows, plain: OfImage(rows, 0)[:, :], '__getitem__'),
    'another permutation': (lambda rows, plain: Map(rows.maps[0]).permute(1, 0, 2, 3), r'permute\(1, 0, 2, 3\)'),
    'another shape': (
        lambda rows, plain: Map(rows.maps[0]).permute(0, 2, 3, 1).reshape(-1, 2, CLASSES),
        r'reshape\(-1, 2, 7\)',
    ),
    'classes that do not divide the channels': (
        lambda rows, plain: Map(rows.maps[0]).permute(0, 2, 3, 1).reshape(-1, 2),
        r'reshape\(-1, 2\) of 21 channels',
    ),
}


@pytest.mark.parametrize(('operation', 'name'), REFUSED.values(), ids=REFUSED)
def test_an_operation_that_would_copy_is_named_with_the_remedy(operation, name):
    with pytest.raises(TypeError, match=rf'^{name}.* is not known .* Go back to the stock head \(RetinaHead for Fused'):
        operation(*rows_and_tensor())
