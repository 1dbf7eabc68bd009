"""What a chunk of classes makes of the labels, and how large it is."""

from types import SimpleNamespace

import pytest
import torch

from focal_plugin.cut import chunk_bytes
from focal_plugin.ops.chunks import Chunk, Labels, chunks
from focal_plugin.ops.cut import Convolution, Cut, Level, Owner
from tests.kernels.problems import focal_problem

GIVEN = torch.tensor([[0, 2, 3, 4], [5, 9, -7, 6], [255, 3, 10**12, 5]])  # of 6 classes, 4 anchors
BACKGROUND, NOBODYS, LEFT_OUT = 3, -1, -2


def labels(ignored=None) -> Labels:
    return Labels(SimpleNamespace(target=GIVEN, pred=torch.empty(0, 6), ignore_index=ignored))


def chunk(first: int, last: int, anchors=slice(0, 4)) -> Chunk:
    return Chunk(anchors, slice(first, last), slice(0, 0))


@pytest.mark.parametrize(
    ('ignored', 'first', 'second'),
    (
        (None, [[0, 2, 3, 3], [3, -1, -1, 3], [-1, 3, -1, 3]], [[3, 3, 0, 1], [2, -1, -1, 3], [-1, 0, -1, 2]]),
        (255, [[0, 2, 3, 3], [3, -1, -1, 3], [-2, 3, -1, 3]], [[3, 3, 0, 1], [2, -1, -1, 3], [-2, 0, -1, 2]]),
        (3, [[0, 2, -2, 3], [3, -1, -1, 3], [-1, -2, -1, 3]], [[3, 3, -2, 1], [2, -1, -1, 3], [-1, -2, -1, 2]]),
        (-7, [[0, 2, 3, 3], [3, -1, -2, 3], [-1, 3, -1, 3]], [[3, 3, 0, 1], [2, -1, -2, 3], [-1, 0, -1, 2]]),
    ),
    ids=('none', 'no class', 'a class of the second chunk', 'negative'),
)
def test_labels_of_other_chunks_are_background_and_no_others(ignored, first, second):
    found, left_out = zip(*map(labels(ignored).among, (chunk(0, 3), chunk(3, 6))), strict=True)
    assert [each.tolist() for each in found] == [first, second]
    assert left_out == (None if ignored is None else LEFT_OUT,) * 2


def test_chunks_of_unlike_sizes_have_their_own_background():
    of = labels(3)
    sizes = {size: of.among(chunk(0, size))[0] for size in (2, 4, 2, 5)}
    for size, found in sizes.items():
        assert found[0, 3] == (4 if size == 5 else size) and found[1, 3] == size  # label 4, and background
        assert found[0, 2] == LEFT_OUT and found[1, 1] == NOBODYS


def test_chunks_of_all_classes_take_the_labels_as_they_are():
    found, left_out = labels(255).among(chunk(0, 6, anchors=slice(1, 3)))
    assert torch.equal(found, GIVEN[:, 1:3]) and found.data_ptr() == GIVEN[:, 1:].data_ptr() and left_out == 255


def test_some_anchors_have_their_own_labels():
    found, _ = labels().among(chunk(3, 6, anchors=slice(1, 3)))
    assert found.tolist() == [[3, 0], [-1, -1], [0, -1]]


def test_a_gpu_has_fewer_and_larger_chunks():
    cpu, cuda = (chunk_bytes(True, torch.device(device)) for device in ('cpu', 'cuda'))
    assert (cpu, cuda) == (64 * 2**20, 128 * 2**20)
    assert chunk_bytes(8, torch.device('cuda')) == chunk_bytes(8, torch.device('cpu')) == 8 * 2**20


LVIS = torch.empty(()).expand(9 * 1203, 256, 3, 3)
V3DET = torch.empty(()).expand(13204, 256, 1, 1)
OF_LEVELS = {
    'LVIS': (LVIS, 9, 64, [18, 9, 9, 9, 9]),  # 64 KiB of P3's logits, twice, and 36 of the weight, four times
    'LVIS, a GPU': (LVIS, 9, 128, [9, 3, 3, 3, 3]),
    'V3Det': (V3DET, 1, 64, [13, 4, 1, 1, 1]),
    'V3Det, a GPU': (V3DET, 1, 128, [7, 2, 1, 1, 1]),
}


@pytest.mark.parametrize(('weight', 'anchors', 'size', 'count'), OF_LEVELS.values(), ids=OF_LEVELS)
def test_small_levels_have_fewer_chunks(weight, anchors, size, count):
    """Batch 2 of 512 x 512, P3 to P7; each chunk of a level costs a GPU's host the same."""
    levels = []
    for side in (64, 32, 16, 8, 4):
        pred = torch.empty(()).expand(2, side, side, anchors, len(weight) // anchors)
        levels.append(Level(len(levels), focal_problem(pred, torch.empty(pred.shape[:-1]), 'torch')))
    cut = Cut(Convolution((1, 1), (1, 1), (1, 1)), levels, size * 2**20, None, Owner('a test', 'leave it out'))
    assert [len(cut.chunks_of(level, weight)) for level in levels] == count


SHAPES = {
    'all anchors': (9, 80, 720, 1),
    'whole anchors, as even as may be': (9, 80, 7 * 80, 2),
    'one anchor': (9, 80, 80, 9),
    'parts of an anchor, of 16 channels': (3, 365, 100, 3 * 4),
    'fewer than 16 channels': (2, 7, 3, 2 * 3),
    'not even one': (1, 5, 0, 5),
    'one class': (9, 1, 4, 3),
}


@pytest.mark.parametrize(('anchors', 'classes', 'channels', 'count'), SHAPES.values(), ids=SHAPES)
def test_chunks_are_all_channels_once(anchors, classes, channels, count):
    found = chunks(anchors, classes, channels)
    assert len(found) == count
    covered = [c for chunk in found for c in range(chunk.channels.start, chunk.channels.stop)]
    assert covered == list(range(anchors * classes))
    for of_anchors, of_classes, of_channels in found:
        assert of_channels.start == of_anchors.start * classes + of_classes.start
        size = of_channels.stop - of_channels.start
        assert size == (of_anchors.stop - of_anchors.start) * (of_classes.stop - of_classes.start)
        assert size <= max(channels, 1)
