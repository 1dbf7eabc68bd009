"""What callers may pass: tensors that are not what their memory says, numbers of any kind, ranges; each with its remedy."""

import numpy as np
import pytest
import torch

import focal_plugin
from focal_plugin import functional
from tests.conftest import ON_A_GPU, may_look

LABELS = torch.tensor([0])
PRED = torch.tensor([[1.0, -2.0]])


def loss(pred=PRED, target=LABELS, weight=None, **arguments) -> torch.Tensor:
    return functional.sigmoid_focal_loss(pred, target, weight, reduction='sum', **arguments)


def negated(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in a tensor whose memory holds their negatives."""
    lazy = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert lazy.is_neg() and torch.equal(lazy, tensor)
    return lazy


def test_a_lazy_negative_is_read_as_what_it_stands_for(device):
    pred, weight, labels = PRED.to(device), torch.tensor([[0.5, 2.0]], device=device), LABELS.to(device)
    leaf = pred.clone().requires_grad_()
    exact = loss(leaf, labels, weight, avg_factor=None)
    exact.backward(torch.tensor(3.0, device=device))
    for arguments in ((negated(pred), weight), (pred, negated(weight))):
        assert loss(arguments[0], labels, arguments[1]) == exact
    again = pred.clone().requires_grad_()
    loss(again, labels, weight).backward(negated(torch.tensor(3.0, device=device)))
    assert torch.equal(again.grad, leaf.grad)
    scores = torch.tensor([0.25], device=device)
    given = [functional.quality_focal_loss(pred, (labels, each)) for each in (scores, negated(scores))]
    dense = [loss(pred, each) for each in (weight / 4, negated(weight / 4))]
    softmax = [functional.softmax_focal_loss(each, labels) for each in (pred, negated(pred))]
    images = ((pred, weight / 4), (negated(pred), negated(weight / 4)))
    masks = [functional.mask_focal_loss(each[None], inside[None]) for each, inside in images]
    for one, other in (given, dense, softmax, masks):
        assert one == other


def test_zeros_without_memory_are_zeros(any_backend, device):
    if device != 'cpu':
        pytest.skip('PyTorch makes them for its own forward-mode derivatives')
    nothing = torch._efficientzerotensor((1, 2))
    assert loss(nothing) == loss(torch.zeros(1, 2))
    assert loss(PRED, LABELS, nothing) == 0
    leaf = PRED.clone().requires_grad_()
    loss(leaf).backward(torch._efficientzerotensor(()))
    assert (leaf.grad == 0).all()


UNREADABLE = {
    'sparse': (lambda t: t.to_sparse(), r'\.to_dense\(\)'),
    'CSR': (lambda t: t.to_sparse_csr(), r'\.to_dense\(\)'),
    'mkldnn': (lambda t: t.to_mkldnn(), r'\.to_dense\(\)'),
    'nested': (lambda t: torch.nested.nested_tensor([t[0]]), 'nested'),
    'quantised': (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.quint8), r'\.dequantize\(\)'),
    'float8': (lambda t: t.to(torch.float8_e4m3fn), r'\.float\(\)'),
    'uint16': (lambda t: t.to(torch.uint16), r'\.long\(\)|logits.*\.float\(\)'),
    'complex': (lambda t: t.to(torch.complex64), 'real|floating'),
}
ARGUMENTS = {
    'pred': lambda t: loss(t),
    'target': lambda t: loss(PRED, t),
    'weight': lambda t: loss(PRED, LABELS, t),
    'avg_factor': lambda t: functional.sigmoid_focal_loss(PRED, LABELS, avg_factor=t),
    'gamma': lambda t: loss(gamma=t),
    'alpha': lambda t: loss(alpha=t),
    'scores': lambda t: functional.quality_focal_loss(PRED, (LABELS, t)),
    'statistics': lambda t: functional.equalized_focal_loss(PRED, LABELS, statistics=t),
    'labels': lambda t: functional.mask_focal_loss(PRED[None], PRED, t),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('make', 'remedy'), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize('argument', ARGUMENTS)
def test_what_no_backend_reads_is_refused_by_name(any_backend, argument, make, remedy):
    with pytest.raises(TypeError, match=rf'{argument}.*({remedy})'):
        ARGUMENTS[argument](make(torch.zeros(1, 2)))


@pytest.mark.parametrize('argument', [each for each in ARGUMENTS if each != 'pred'])
def test_a_tensor_on_meta_is_refused_by_name(any_backend, argument):
    shapes = {'avg_factor': (), 'gamma': (2,), 'alpha': (2,), 'scores': (1,), 'statistics': (2, 2), 'labels': (1,)}
    with pytest.raises(ValueError, match=rf'{argument}.*meta'):
        ARGUMENTS[argument](torch.zeros(shapes.get(argument, (1, 2)), device='meta'))


def test_more_dimensions_than_eight(any_backend, device):
    pred, labels = torch.randn(*[1, 2] * 5, 3), torch.randint(0, 4, [1, 2] * 5)
    flat = functional.sigmoid_focal_loss(pred.reshape(-1, 3).to(device), labels.flatten().to(device))
    torch.testing.assert_close(functional.sigmoid_focal_loss(pred.to(device), labels.to(device)), flat)


@pytest.mark.parametrize('kind', (np.float16, np.float32, np.float64, np.int64))
def test_numbers_of_numpy_become_pythons(device, kind):
    """np.float16(3) + 1.2e-7 is 3, and np.float32 would take float64 logits' digits."""
    pred, labels = PRED.to(device), LABELS.to(device)
    plain = functional.sigmoid_focal_loss(pred, labels, avg_factor=3.0)
    assert functional.sigmoid_focal_loss(pred, labels, avg_factor=kind(3)) == plain
    assert functional.sigmoid_focal_loss(pred, labels, avg_factor=kind(0)).isfinite()
    assert loss(pred, labels, gamma=kind(2)) == loss(pred, labels, gamma=2.0)
    if kind is np.int64:
        assert loss(pred, labels, ignore_index=kind(0)) == 0
    with focal_plugin.use_backend('torch'):
        exact = functional.sigmoid_focal_loss(PRED.double(), LABELS, avg_factor=3.0)
        assert functional.sigmoid_focal_loss(PRED.double(), LABELS, avg_factor=kind(3)) == exact


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16, torch.float32, torch.float64))
def test_vectors_are_combined_in_the_dtype_of_the_arithmetic(device, dtype):
    """1 - alpha in float16 is off by 8e-4."""
    alpha = torch.tensor([0.3, 0.7], dtype=dtype)
    pred, labels = PRED.to(device), LABELS.to(device)
    assert loss(pred, labels, alpha=alpha.to(device)) == loss(pred, labels, alpha=alpha.double().tolist())


def test_a_list_keeps_the_digits_of_float64_logits():
    with focal_plugin.use_backend('torch'):
        numbers, lists = (
            loss(PRED.double(), alpha=alpha, gamma=gamma) for alpha, gamma in ((0.1, 1.7), ([0.1] * 2, [1.7] * 2))
        )
        torch.testing.assert_close(lists, numbers, rtol=1e-14, atol=0)
        balanced = functional.class_balanced_focal_loss(
            PRED.double(), LABELS, samples_per_class=[10, 1000], reduction='sum'
        )
    assert balanced.dtype == torch.float64
    effective = [1 - 0.9999**n for n in (10, 1000)]
    factor = 2 * (1 / effective[0]) / sum(1 / each for each in effective)
    plain = loss(PRED.double(), alpha=None)
    torch.testing.assert_close(balanced, factor * plain, rtol=1e-10, atol=0)


REFUSED = {
    'ignore_index beyond int64': (dict(ignore_index=2**64 + 1), ValueError, 'ignore_index'),
    'ignore_index True': (dict(ignore_index=True), TypeError, 'ignore_index'),
    'activated 2': (dict(activated=2), ValueError, 'activated'),
    'activated None': (dict(activated=None), ValueError, 'activated'),
    'activated an object': (dict(activated=object()), ValueError, 'activated'),
    'activated an array': (dict(activated=np.array([True, False])), ValueError, 'activated'),
    'a gamma that no float holds': (dict(gamma=10**400), ValueError, 'gamma'),
    'gamma as bytes': (dict(gamma=b'ab'), TypeError, 'gamma'),
    'avg_factor that no float holds': (dict(avg_factor=10**400, reduction='mean'), ValueError, 'avg_factor'),
    'avg_factor True': (dict(avg_factor=True, reduction='mean'), TypeError, 'avg_factor'),
    'avg_factor complex': (dict(avg_factor=1j, reduction='mean'), TypeError, 'avg_factor'),
    'a bool tensor': (dict(avg_factor=torch.tensor(True), reduction='mean'), TypeError, 'avg_factor'),
    'a complex tensor': (dict(avg_factor=torch.tensor(1j), reduction='mean'), TypeError, 'avg_factor'),
    'reduction as an array': (dict(reduction=np.array(['mean', 'sum'])), ValueError, 'reduction'),
    'alpha as a bool tensor': (dict(alpha=torch.tensor([True, False])), TypeError, 'alpha'),
}


@pytest.mark.parametrize(('arguments', 'error', 'name'), REFUSED.values(), ids=REFUSED)
def test_numbers_and_flags_that_are_none(any_backend, arguments, error, name):
    with pytest.raises(error, match=name):
        functional.sigmoid_focal_loss(PRED, LABELS, **arguments)


def test_other_flags_and_sequences():
    for value in (2, None, object()):
        with pytest.raises(ValueError, match='from_logits'):
            functional.gaussian_focal_loss(PRED.sigmoid(), PRED.sigmoid(), from_logits=value)
    assert functional.sigmoid_focal_loss(PRED.sigmoid(), LABELS, activated=np.True_).isfinite()
    with pytest.raises(TypeError, match='samples_per_class'):
        functional.class_balanced_focal_loss(torch.zeros(1, 3), LABELS, samples_per_class=b'abc')
    with pytest.raises(ValueError, match='class_beta'):
        functional.class_balanced_focal_loss(PRED, LABELS, samples_per_class=[1, 2], class_beta=np.float32(1.0))


def test_a_label_where_there_are_no_classes(any_backend):
    if any_backend in ON_A_GPU:
        pytest.skip('a GPU does not look, and there is no row to make NaN')
    with pytest.raises(ValueError, match=r'label 5 is outside \[0, 0\]'):
        functional.sigmoid_focal_loss(torch.zeros(1, 0), torch.tensor([5]))


def test_the_message_for_a_wrong_label_names_what_callers_have():
    from focal_plugin.losses import FusedFocalLoss

    for call in (lambda: loss(target=torch.tensor([-1])), lambda: FusedFocalLoss()(PRED, torch.tensor([-1]))):
        with pytest.raises(
            ValueError, match=r'ignore_index=-1, an argument of functional\.sigmoid_focal_loss\(\) and of'
        ):
            call()
    assert FusedFocalLoss(ignore_index=-1)(PRED, torch.tensor([-1])) == 0


ZERO = torch.zeros(1, 1)
SCORE = (LABELS, torch.tensor([1.5]))
BYTES = torch.tensor([[255]], dtype=torch.uint8)
OUTSIDE = {
    'a mask of 0 and 255': (lambda: functional.mask_focal_loss(ZERO, BYTES), 'divide.*255'),
    'dense -1': (lambda: loss(ZERO, torch.tensor([[-1.0]])), 'from -1 to -1'),
    'dense 2, whole numbers': (lambda: loss(ZERO, torch.tensor([[2]])), 'from 2 to 2'),
    'a score of 1.5': (lambda: functional.quality_focal_loss(ZERO, SCORE), 'scores'),
    'a score that the batch would divide': (
        lambda: functional.position_supervised_loss(ZERO, SCORE, normalize='batch'),
        'scores',
    ),
    'a heat map': (lambda: functional.gaussian_focal_loss(ZERO, torch.tensor([[1.5]])), 'dense'),
    'beside a NaN': (lambda: loss(torch.zeros(1, 2), torch.tensor([[float('nan'), 3.0]])), 'from 3 to 3'),
    'logits where probabilities are the default': (
        lambda: functional.gaussian_focal_loss(ZERO - 2, ZERO),
        'from_logits=False .* write from_logits=True',
    ),
    'logits as probabilities': (lambda: loss(ZERO - 2, activated=True), 'activated=True .* write activated=False'),
    'a probability beside a NaN': (lambda: loss(torch.tensor([[1.2, float('nan')]]), activated=True), 'probabilities'),
}


@pytest.mark.parametrize(('call', 'message'), OUTSIDE.values(), ids=OUTSIDE)
def test_targets_outside_0_to_1_are_refused_on_a_cpu(any_backend, call, message):
    if not may_look(any_backend):
        pytest.skip('nobody looks')
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16, torch.float16))
def test_the_rounding_of_an_iou_to_above_1_is_1(any_backend, device, dtype):
    """area1 + area2 - overlap of equal boxes may be rounded to below the overlap."""
    above = torch.tensor([1 + torch.finfo(dtype).eps], dtype=dtype, device=device)
    pred, labels = PRED.to(device), LABELS.to(device)
    if not may_look(any_backend):
        return  # nobody looks
    for name in ('quality_focal_loss', 'iou_aware_bce_loss', 'matchability_aware_loss'):
        function = getattr(functional, name)
        assert function(pred, (labels, above)) == function(pred, (labels, torch.ones_like(above)))
    heat = [functional.gaussian_focal_loss(pred.sigmoid(), each.expand(1, 2), gamma=0.5) for each in (above, above**0)]
    assert heat[0] == heat[1]


def test_scores_of_rows_that_do_not_count_may_be_anything(any_backend, device):
    labels, scores = torch.tensor([2, 7, 0], device=device), torch.tensor([-3.0, 9.0, 0.5], device=device)
    pred = torch.randn(3, 2, device=device)
    value = functional.quality_focal_loss(pred, (labels, scores), ignore_index=7, reduction='none')
    assert value.isfinite().all() and value[1] == 0


def test_the_quality_loss_of_maps_sums_dimension_1_as_mmdet(device):
    from focal_plugin.losses import FusedQualityFocalLoss

    loss = FusedQualityFocalLoss()(torch.zeros(1, 1, 2, device=device), torch.ones(1, 1, 2, device=device))
    assert float(loss) == pytest.approx(0.25 * 0.6931471805599453)
