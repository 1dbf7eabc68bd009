"""How many kernels a training compiles: images have hundreds of sizes, and a kernel takes seconds."""

import random

import pytest
import torch

from focal_plugin import backend, losses
from focal_plugin.rows import Rows, Scored
from tests.gpu.driver import StandIn, binders, kernels, needs_compiler, take_for_a_gpu

pytestmark = needs_compiler
ITERATIONS, BATCH, CLASSES = 400, 2, 80
# Widths and heights of photographs in COCO, with weights: the usual ones, and some that are rare.
PHOTOGRAPHS = {
    (640, 480): 40, (480, 640): 14, (640, 427): 12, (427, 640): 4, (640, 426): 6, (500, 375): 6, (375, 500): 3,
    (640, 428): 2, (640, 425): 3, (612, 612): 2, (640, 640): 2, (640, 360): 3, (500, 333): 3, (640, 424): 2,
    (500, 334): 1, (480, 360): 1, (640, 512): 1, (640, 429): 1, (333, 500): 1, (640, 361): 1, (640, 478): 1,
    (360, 640): 1, (640, 457): 1, (600, 400): 1, (640, 523): 1, (500, 281): 1, (521, 640): 1,
}  # fmt: skip
HEADS = {
    # loss, anchors a place, whether the head joins its levels, target
    'RetinaHead': ('FusedFocalLoss', 9, False, 'labels'),
    'FCOSHead': ('FusedFocalLoss', 1, True, 'labels'),
    'ATSSHead': ('FusedFocalLoss', 1, False, 'labels'),
    'GFLHead': ('FusedQualityFocalLoss', 1, False, 'scored'),
    'VFNetHead': ('FusedVarifocalLoss', 1, True, 'scored'),
    'a softmax': ('FusedSoftmaxFocalLoss', 1, True, 'labels'),
    'no multiple of 16 classes': ('FusedFocalLoss', 3, False, 'labels'),
}


class Loaded:
    """Stands for a compiled kernel."""

    function = packed_metadata = None

    def launch_metadata(self, *args) -> None:
        pass

    def run(self, *args) -> None:
        pass


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The names of the kernels that Triton's JIT asks its compiler for, in whose place nothing runs."""
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', False)  # no value is looked at
    names, caches, driver = [], binders(), StandIn(90)
    take_for_a_gpu(monkeypatch, driver, caches, relaunches=False)

    def compiler(kernel):
        return lambda source, **options: names.append(kernel.fn.__name__) or Loaded()

    for kernel, cache in zip(kernels(), caches, strict=True):
        cache[driver.get_current_device()]  # which sets the compiler
        monkeypatch.setattr(kernel, 'compile', compiler(kernel))
    return names


def levels(rng: random.Random, step: int = 32) -> list[tuple[int, int]]:
    """Heights and widths of P3 to P7 of a batch, resized to (1333, 800) and padded as mmdet does."""
    sizes = []
    for width, height in rng.choices(list(PHOTOGRAPHS), PHOTOGRAPHS.values(), k=BATCH):
        scale = min(1333 / max(width, height), 800 / min(width, height))
        sizes.append((round(height * scale), round(width * scale)))
    size = [-(-max(lengths) // step) * step for lengths in zip(*sizes, strict=True)]
    return [tuple(-(-length // 2**level) for length in size) for level in range(3, 8)]


def per_row(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels, and scores or weights."""
    return torch.empty(rows, dtype=torch.int64), torch.empty(rows)


def train(compiled: list[str], step) -> None:
    """Some iterations, after the first five of which nothing is compiled any more."""
    rng = random.Random(0)
    for iteration in range(ITERATIONS):
        with backend.use_backend('triton'):
            step(rng)
        if iteration == 4:
            first = list(compiled)
    assert compiled == first
    assert 3 <= len(compiled) <= 8, compiled


@pytest.mark.sampled(4)
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize('head', HEADS)
def test_zero_copy_heads(compiled, head, dtype):
    name, anchors, joins, form = HEADS[head]
    classes = 20 if 'no multiple' in head else CLASSES
    loss = getattr(losses, name)()

    def step(rng):
        maps = [torch.empty(BATCH, anchors * classes, *size, dtype=dtype, requires_grad=True) for size in levels(rng)]
        for some in [maps] if joins else [[each] for each in maps]:
            rows = Rows(some, classes, loss.spec.scored)
            labels, weight = per_row(rows.size(0))
            target = Scored(labels, torch.empty_like(weight)) if form == 'scored' else labels
            loss(rows, target, weight, avg_factor=torch.tensor(5.0)).backward()

    train(compiled, step)


@pytest.mark.parametrize(('anchors', 'joins'), ((9, False), (1, True)), ids=('level by level', 'levels joined'))
def test_stock_heads(compiled, anchors, joins):
    loss = losses.FusedFocalLoss()

    def step(rng):
        counts = [BATCH * anchors * height * width for height, width in levels(rng)]
        for rows in [sum(counts)] if joins else counts:
            pred = torch.empty(rows, CLASSES, requires_grad=True)
            loss(pred, *per_row(rows), avg_factor=5.0).backward()

    train(compiled, step)


MASKS = {
    '28 x 28': lambda rng: (28, 28),
    'as large as an eighth of the image': lambda rng: levels(rng)[0],
}


@pytest.mark.parametrize('size_of', MASKS.values(), ids=MASKS)
def test_masks(compiled, size_of):
    """By channel: as many as there are objects."""
    loss = losses.FusedMaskFocalLoss()

    def step(rng):
        objects, size = rng.randint(1, 60), size_of(rng)
        pred = torch.empty(objects, 4, *size, requires_grad=True)
        loss(pred, torch.empty(objects, *size), torch.zeros(objects, dtype=torch.int64)).backward()

    train(compiled, step)


def test_masks_without_channels(compiled):
    loss = losses.FusedFocalLoss()

    def step(rng):
        height, width = levels(rng)[0]
        pred = torch.empty(rng.randint(1, 60), height * width, requires_grad=True)
        loss(pred, torch.empty_like(pred), avg_factor=5.0).backward()

    train(compiled, step)
