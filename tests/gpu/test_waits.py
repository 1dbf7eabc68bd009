"""No loss waits for the device, forward or backward; what it needs of the CPU it copies once."""

import pytest
import torch

from focal_plugin import functional, use_backend
from focal_plugin.math import SPECS
from tests.oracle.inputs import labels, predictions
from tests.variants import VARIANTS

ROWS, CLASSES = 30, 7
VECTOR = [0.2 + 0.1 * k for k in range(CLASSES)]
TARGETS = {
    'labels': lambda: labels(ROWS, classes=CLASSES),
    'scored': lambda: (labels(ROWS, classes=CLASSES), torch.rand(ROWS)),
    'dense': lambda: torch.rand(ROWS, CLASSES),
}
AVERAGES = {'no avg_factor': None, 'a number': 3.0, 'a tensor': torch.tensor(3.0), 'a vector': torch.tensor([3])}


@pytest.fixture
def losses():
    return pytest.importorskip('focal_plugin.losses', exc_type=ImportError)  # mmdet's registry


def moved(value, stand_in: str):
    if isinstance(value, tuple):
        return tuple(moved(each, stand_in) for each in value)
    return value.to(stand_in) if isinstance(value, torch.Tensor) else value


def waits_of_a_second_step(loss, stand_in: str, shape, *arguments, **named) -> list[str]:
    """What waits in a forward and a backward that are not the first, as a first one copies what stays there."""
    from tests.gpu.device import waits

    arguments, named = moved(arguments, stand_in), {name: moved(value, stand_in) for name, value in named.items()}
    for _ in range(2):
        leaf = predictions(*shape).to(stand_in).requires_grad_()
        upstream = torch.ones((), device=stand_in)
        with waits() as noted:
            value = loss(leaf, *arguments, **named)
            value.backward(upstream.expand(value.shape))
        assert leaf.grad.device == leaf.device
    return noted


def required(name: str) -> dict:
    return VARIANTS[name].required(CLASSES)


def vectors(name: str) -> dict:
    return {p.name: VECTOR for p in SPECS[name].parameters if p.vector}


FORMS = [
    (name, form)
    for name, spec in SPECS.items()
    for form in TARGETS
    if not (form == 'scored' and not spec.scored) and not (form == 'dense' and not VARIANTS[name].dense)
]


@pytest.mark.parametrize('reduction', ('none', 'sum', 'mean'))
@pytest.mark.parametrize('name, form', FORMS, ids=map('-'.join, FORMS))
def test_functions(stand_in, name, form, reduction):
    loss = getattr(functional, SPECS[name].function)
    named = dict(weight=torch.rand(ROWS), reduction=reduction) | required(name)
    if form != 'dense':
        named['ignore_index'] = 2
    assert waits_of_a_second_step(loss, stand_in, (ROWS, CLASSES), TARGETS[form](), **named) == []


@pytest.mark.parametrize('average', AVERAGES.values(), ids=AVERAGES)
def test_avg_factor(stand_in, average):
    for name, spec in SPECS.items():
        loss = getattr(functional, spec.function)
        named = dict(avg_factor=average) | required(name)
        assert waits_of_a_second_step(loss, stand_in, (ROWS, CLASSES), TARGETS[spec.form](), **named) == [], name


WITH_VECTORS = [name for name in SPECS if vectors(name)]
KINDS = {'a list': list, 'a tensor of the CPU': torch.tensor, 'a tensor of the device': torch.tensor}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', WITH_VECTORS)
def test_vectors_over_the_classes(stand_in, name, kind):
    loss = getattr(functional, SPECS[name].function)
    given = {key: KINDS[kind](value) for key, value in vectors(name).items()}
    if kind == 'a tensor of the device':
        given = {key: value.to(stand_in) for key, value in given.items()}
    step = lambda pred, target: loss(pred, target, **given)  # noqa: E731
    assert waits_of_a_second_step(step, stand_in, (ROWS, CLASSES), TARGETS[SPECS[name].form]()) == []


@pytest.mark.parametrize('was_moved', (True, False), ids=('moved', 'never moved'))
@pytest.mark.parametrize('with_vectors', (False, True), ids=('numbers', 'vectors'))
@pytest.mark.parametrize('name', SPECS)
def test_classes(stand_in, losses, name, with_vectors, was_moved):
    spec, kind = SPECS[name], losses.CLASSES[name]
    arguments = required(name) | (vectors(name) if with_vectors else {})
    arguments = {key: value for key, value in arguments.items() if key not in kind.withheld}
    if name == 'equalized_focal':
        arguments['num_classes'] = CLASSES
        if not was_moved:
            pytest.skip('its statistics are sums over the iterations, and lie where the loss was moved to')
    if kind.labelled:
        arguments['ignore_index'] = 2
    if kind.labelled and with_vectors:
        arguments['class_weight'] = VECTOR
    if spec.probabilities == 'from_logits':
        arguments['from_logits'] = True
    loss = kind(**arguments)
    loss = loss.to(stand_in) if was_moved else loss
    target = TARGETS['labels' if kind.labelled else spec.form]()
    named = dict(weight=torch.rand(ROWS), avg_factor=torch.tensor(5.0))
    assert waits_of_a_second_step(loss, stand_in, (ROWS, CLASSES), target, **named) == []


@pytest.mark.parametrize('labelled', (True, False), ids=('by channel', 'one mask per instance'))
def test_masks(stand_in, losses, labelled):
    loss, shape = losses.FusedMaskFocalLoss(), (5, 3, 4, 6) if labelled else (5, 4, 6)
    named = dict(weight=torch.rand(5), labels=torch.tensor([0, 1, 2, 1, 0]) if labelled else None)
    assert waits_of_a_second_step(loss, stand_in, shape, torch.rand(5, 4, 6).round(), **named) == []


def test_heatmaps_with_positives_named(stand_in, losses):
    loss = losses.FusedGaussianFocalLoss(from_logits=True)
    named = dict(pos_inds=torch.tensor([3, 5]), pos_labels=torch.tensor([1, 0]), avg_factor=torch.tensor(2.0))
    assert waits_of_a_second_step(loss, stand_in, (ROWS, CLASSES), torch.rand(ROWS, CLASSES), **named) == []


@pytest.mark.parametrize('with_vectors', (False, True), ids=('numbers', 'vectors'))
@pytest.mark.parametrize('name, form', FORMS, ids=map('-'.join, FORMS))
def test_the_torch_backend(stand_in, name, form, with_vectors):
    """It serves where Triton doesn't take the dtype."""
    named = required(name) | (vectors(name) if with_vectors else {})
    loss = lambda pred, *rest: getattr(functional, SPECS[name].function)(pred.double(), *rest, **named)  # noqa: E731
    with use_backend('torch'):
        assert waits_of_a_second_step(loss, stand_in, (ROWS, CLASSES), TARGETS[form](), torch.rand(ROWS)) == []


def test_vectors_are_those_of_the_call(stand_in):
    """What was copied is taken again for the same numbers on the same device only."""
    pred, target = predictions(ROWS, CLASSES), labels(ROWS, classes=CLASSES)
    alpha = torch.tensor(VECTOR)
    for _ in range(2):
        ours = functional.sigmoid_focal_loss(pred.to(stand_in), target.to(stand_in), alpha=alpha)
        with use_backend('torch'):
            torch.testing.assert_close(ours.cpu(), functional.sigmoid_focal_loss(pred, target, alpha=alpha))
        alpha[3] = 0.9
