"""The generator: call number `index` of a campaign is a function of the seed and the index alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from tests.campaign.call import Call
from tests.campaign.tensors import (
    INF,
    NAN,
    RANGES,
    Random,
    in_memory,
    laid_out,
    logits,
    near_one,
    probabilities,
    some_layout,
)
from tests.campaign.variants import VARIANTS

CLASSES = (1, 2, 3, 7, 8, 9, 16, 17, 80)
HALVES = (torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
IGNORED = (255, -1, -100, 1000, 2**40, -(2**63), np.int64(255), np.int32(-7))
DENSE = (torch.float32, torch.float32, torch.bool, torch.int64, torch.uint8, torch.int32)


def call_of(seed: int, index: int, backend: str, variants: Sequence[str] = tuple(VARIANTS)) -> Call:
    """A valid call of one of these variants; that of interpreted Triton is tiny."""
    random = Random(seed, index)
    variant = random.one(variants)
    tiny = backend == 'triton'
    dtypes = (torch.float32,) * 4 + HALVES + ((torch.float64,) if backend == 'torch' else ())
    call = Call(variant, torch.zeros(1), torch.zeros(1), reduction=random.one(('none', 'mean', 'sum')))
    call.by_class = not tiny and random.chance(0.25)
    call.probabilities = call.spec.probabilities is not None and random.chance(0.4)
    shape = _shape(random, tiny, call)
    range_ = random.one(RANGES)
    values = probabilities if call.probabilities else logits
    pred = values(random, shape, random.one(dtypes), range_)
    if backend == 'triton' and pred.dtype == torch.bfloat16:  # the interpreter widens subnormal ones wrongly
        pred = torch.where(pred.abs() < torch.finfo(pred.dtype).smallest_normal, 0, pred)
    _set_pred(random, call, pred, range_)
    if variant == 'mask_focal':
        _set_masks(random, call, range_)
    else:
        _set_target(random, call, range_)
        _set_weight(random, call, range_)
    _set_parameters(random, call)
    _set_avg_factor(random, call)
    _set_upstream(random, call)
    if not tiny:
        _set_derivatives(random, call, range_)
    return call


def rows_of(call: Call) -> torch.Size:
    return call.pred.shape[:-1]


def ignored_rows(call: Call) -> torch.Tensor:
    """Which rows are ignored; none where there are no labels."""
    labels = call.target[0] if isinstance(call.target, tuple) else call.target
    if call.ignore_index is None or call.variant == 'mask_focal':
        return torch.zeros(rows_of(call), dtype=torch.bool)
    return labels.long() == int(call.ignore_index)


def _is_above_one(target) -> bool:
    """Whether a value is rounded to above 1, which is not looked at, and so not taken for 1, under a transform."""
    values = target[1] if isinstance(target, tuple) else target
    return values.is_floating_point() and bool((in_memory(values) > 1).any())


def _shape(random: Random, tiny: bool, call: Call) -> tuple[int, ...]:
    classes = random.one(CLASSES[:6] if tiny else CLASSES)
    if not tiny and random.chance(0.02):
        classes = 365 if call.by_class else random.one((365, 0))
    if call.variant == 'softmax_focal':
        classes = max(classes, 2)
    most = 6 if tiny else 40
    if call.variant == 'mask_focal':
        size = random.one(((1 + random.below(9),), (1 + random.below(4), 1 + random.below(4))))
        channels = (max(classes % 9, 1),) if random.chance(0.6) else ()
        return (random.below(5), *channels, *size)
    if not tiny and random.chance(0.004):  # large enough for torch and ours to share it among threads
        return (3000 if random.chance(0.5) else 1111, 80 if classes else 0)
    flat = (
        call.by_class and call.spec.per_row
    )  # classes that stand in for mmdet's QualityFocalLoss sum over dimension 1
    dimensions = 2 if flat or random.chance(0.5) else 1 + random.below(5)
    if not flat and not tiny and random.chance(0.02):
        dimensions = 9 + random.below(3)
    if dimensions == 2:
        return (classes if random.chance(0.1) and classes <= most else random.below(most + 1), classes)
    if dimensions > 5:
        return (*(1 + random.below(2) for _ in range(dimensions - 1)), min(classes, 3))
    sides = max(1, round(most ** (1 / max(dimensions - 1, 1))))
    return (*(1 + random.below(sides) for _ in range(dimensions - 1)), classes)


def _set_pred(random: Random, call: Call, pred: torch.Tensor, range_: str) -> None:
    if call.variant == 'softmax_focal' and range_ in ('infinite', 'unknown'):
        # A row of several infinite logits has no limit that does not depend on the way there.
        infinite = pred.isinf()
        first = infinite & (infinite.cumsum(-1) == 1)
        pred = torch.where(infinite & ~first, 1.0, pred).to(pred.dtype)
    call.pred, call.layouts['pred'] = some_layout(random, pred, 0.5)


def _set_target(random: Random, call: Call, range_: str) -> None:
    spec, rows, classes = call.spec, rows_of(call), call.pred.size(-1)
    form = random.one(['labels'] + ['scored'] * spec.scored + ['dense'] * spec.dense)
    if form == 'dense':
        call.target, call.layouts['target'] = some_layout(random, _dense(random, call, call.pred.shape, range_), 0.4)
        return
    background = 0 if call.variant == 'softmax_focal' else 1
    labels = random.integers(max(classes + background, 1), rows)
    dtype = random.one([each for each in INTEGERS if classes <= torch.iinfo(each).max])
    if random.chance(0.35) and not (call.by_class and call.variant == 'gaussian_focal'):
        call.ignore_index = random.one((*IGNORED, 0, classes))
        info = torch.iinfo(dtype)
        if info.min <= call.ignore_index <= info.max:
            labels = torch.where(random.mask(rows, 0.3), int(call.ignore_index), labels)
    labels, layout = some_layout(random, labels.to(dtype), 0.3)
    call.target, call.layouts['target'] = labels, layout
    if form == 'scored':
        silent = ignored_rows(call) | (labels.long() == classes)
        scores, call.layouts['target'] = some_layout(random, _scores(random, rows, silent, range_), 0.3)
        call.target = labels, scores


def _scores(random: Random, rows, silent: torch.Tensor, range_: str) -> torch.Tensor:
    """In [0, 1]; anything where nobody looks; NaN at positives seldom."""
    dtype = random.one((torch.float32, torch.float32, torch.float64, *HALVES))
    scores = random.sprinkled(random.uniform(rows), (0.0, 1.0, 0.5, near_one(dtype)), 0.4)
    if range_ == 'unknown':
        scores = random.sprinkled(scores, (NAN,), 0.2)
    anything = random.sprinkled(torch.zeros(rows, dtype=torch.float64), (NAN, 7.0, -3.0, INF), 0.6)
    return torch.where(silent, anything, scores).to(dtype)


def _dense(random: Random, call: Call, shape, range_: str) -> torch.Tensor:
    dtype = random.one((*DENSE, *HALVES, call.pred.dtype))
    if not dtype.is_floating_point:
        return random.integers(2, shape).to(dtype)
    target = random.sprinkled(random.uniform(shape), (0.0, 0.0, 1.0, 1.0, 0.5), 0.5)
    if range_ == 'unknown':
        target = random.sprinkled(target, (NAN,), 0.1)
    return target.to(dtype)


def _weight(random: Random, shape, range_: str) -> torch.Tensor:
    weight = random.sprinkled(random.uniform(shape) * 2, (0.0, 1.0), 0.3)
    if range_ == 'unknown':
        weight = random.sprinkled(weight, (NAN,), 0.05)
    return weight


def _set_weight(random: Random, call: Call, range_: str) -> None:
    if random.chance(0.4):
        return
    shape, rows = tuple(call.pred.shape), tuple(rows_of(call))
    forms = [rows, (*rows, 1)]
    if call.variant != 'softmax_focal':
        forms += [shape, (math.prod(shape),), (*[1] * len(rows), shape[-1])]
    form = random.one(forms)
    weight = _weight(random, form, range_)
    if form in (rows, (*rows, 1), shape):
        silent = ignored_rows(call)
        silent = silent if form == rows else silent.unsqueeze(-1).expand(form)
        weight = torch.where(silent, random.sprinkled(weight, (NAN, INF, -INF), 0.5), weight)
    dtype = random.one((torch.float32, torch.float32, *HALVES, torch.float64, call.pred.dtype))
    if random.chance(0.1) and not ignored_rows(call).any():
        call.weight, call.layouts['weight'] = weight.to(dtype).flatten()[:1].sum().expand(form), 'expanded'
        return
    call.weight, call.layouts['weight'] = some_layout(random, weight.to(dtype), 0.4)


def _set_masks(random: Random, call: Call, range_: str) -> None:
    picks = call.pred.dim() >= 3 and random.chance(0.7)
    shape = (call.pred.size(0), *call.pred.shape[2:]) if picks else tuple(call.pred.shape)
    if picks and (call.pred.size(1) > 1 or random.chance(0.5)):
        call.labels = random.integers(call.pred.size(1), shape[:1]).to(random.one(INTEGERS))
    call.target, call.layouts['target'] = some_layout(random, _dense(random, call, shape, range_), 0.3)
    if random.chance(0.5):
        form = random.one((shape[:1], shape))
        call.weight, call.layouts['weight'] = some_layout(random, _weight(random, form, range_).float(), 0.3)


def _set_parameters(random: Random, call: Call) -> None:
    spec, classes = call.spec, call.pred.size(-1)
    for name, values in spec.tried.items():
        if random.chance(0.5):
            value = random.one(values)
            if spec.vectors and name in spec.vectors and classes and random.chance(0.3):
                value = [random.one(spec.vectors[name]) for _ in range(classes)]
                if not call.by_class and random.chance(0.6):
                    value = torch.tensor(value, dtype=random.one((torch.float32, torch.float64, *HALVES)))
            call.given[name] = value
    if call.variant == 'class_balanced_focal':
        call.given['samples_per_class'] = [10.0 ** random.below(5) for _ in range(classes)]
    if call.pred.isinf().any():
        call.given.pop('normalize', None)  # 1 / (1 + 1e-8) is 1 in float32, and the limit another
    if call.by_class:
        call.given.pop('ratio', None)
        call.loss_weight = random.one((1.0, 1.0, 2.0, 0.5, 0.0, 3))


def _set_avg_factor(random: Random, call: Call) -> None:
    if call.reduction == 'sum' or random.chance(0.4):
        return
    value = random.one((0, 1, 13.5, 0.001, 3, 100.7))
    whole = int(value)
    lazy = laid_out(random, torch.tensor([float(value)]), 'negative bit')
    call.avg_factor = random.one((
        float(value), whole, np.float16(value), np.float32(value), np.float64(value), np.int64(whole), np.int32(whole),
        torch.tensor(value, dtype=torch.float32), torch.tensor([value], dtype=torch.float32), torch.tensor(whole),
        torch.tensor([value], dtype=torch.float64), torch.tensor(value, dtype=torch.float16),
        lazy,
    ))  # fmt: skip
    if call.avg_factor is lazy:
        call.layouts['avg_factor'] = 'negative bit'


def _set_upstream(random: Random, call: Call) -> None:
    shape = call.output_shape
    upstream = random.normal(shape) + 0.1
    if call.reduction == 'none' and call.variant != 'mask_focal':
        silent = ignored_rows(call)
        silent = silent if silent.shape == upstream.shape else silent.unsqueeze(-1).expand(shape)
        upstream = torch.where(silent, random.sprinkled(upstream, (INF, NAN), 0.5), upstream)
    elif random.chance(0.3):
        upstream = torch.full(shape, random.one((1.0, 512.0, 0.0)), dtype=torch.float64)
    upstream = upstream.to(call.output_dtype)
    if random.chance(0.1):
        expanded = upstream.flatten()[:1].nan_to_num(posinf=1.0).sum().expand(shape)
        call.upstream, call.layouts['upstream'] = expanded, 'expanded'
    elif random.chance(0.03) and not call.pred.isnan().any():
        zero = torch._efficientzerotensor(shape, dtype=upstream.dtype)
        call.upstream, call.layouts['upstream'] = zero, 'zero tensor'
    else:
        call.upstream, call.layouts['upstream'] = some_layout(random, upstream, 0.4)


def _set_derivatives(random: Random, call: Call, range_: str) -> None:
    """What else is differentiated, and how; each seldom."""
    if call.layouts['upstream'] == 'zero tensor':
        return
    if random.chance(0.12):
        names = ['weight'] * (call.weight is not None and call.weight.is_floating_point())
        names += ['avg_factor'] * (isinstance(call.avg_factor, torch.Tensor) and call.avg_factor.is_floating_point())
        values = call.target[1] if isinstance(call.target, tuple) else call.target
        names += ['target'] * values.is_floating_point()
        call.requires = tuple(name for name in names if random.chance(0.7))
    elif random.chance(0.07) and not call.probabilities and call.variant != 'mask_focal':
        call.second = random.normal(call.pred.shape).to(call.pred.dtype)
    elif random.chance(0.08):
        ways = ('checkpoint',) if _is_above_one(call.target) else ('vjp', 'checkpoint')
        call.way = random.one(ways)
    elif call.variant == 'equalized_focal' and not call.by_class:
        call.statistics = not torch.is_tensor(call.target) or not call.target.double().isnan().any().item()
    call.wide = random.chance(0.05)
