"""The share of zeros in heat maps, by which the kernel report counts a loss of theirs."""

import json

import pytest
import torch

from tools.benchmarks.results import KERNELS, read
from tools.kernel_analysis import heat_maps, shares


def test_a_group_with_one_other_value_is_not_all_zero():
    maps = torch.zeros(2, 8, 16)
    maps[1, 3, 5] = 0.5
    assert heat_maps.share_of_zeros(maps) == 255 / 256
    assert [heat_maps.share_of_groups(maps, size) for size in (256, 64, 16)] == [1, 1 / 4, 1 / 16]


def test_a_box_makes_an_object_in_the_map_of_its_class(tmp_path):
    """Of a photo of 1024 x 512, halved, in the map a quarter of that."""
    pytest.importorskip('mmdet')
    file = tmp_path / 'photo.json'
    file.write_text(
        json.dumps(
            {
                'images': [{'id': 7, 'width': 1024, 'height': 512}],
                'annotations': [{'image_id': 7, 'category_id': 18, 'bbox': [320, 160, 160, 160]}],
                'categories': [{'id': 1}, {'id': 18}],
            }
        )
    )
    maps = heat_maps.heat_maps(file)
    assert maps.shape == (1, 80, 128, 128)
    assert (maps == 1).nonzero().tolist() == [[0, 1, 30, 50]]
    assert 0 < maps[0, 1, 30, 51] < 1 and maps[0, 0].max() == 0


def test_the_report_counts_with_the_share_of_the_photos():
    pytest.importorskip('mmdet')
    maps = heat_maps.heat_maps(heat_maps.PHOTOS)
    assert round(heat_maps.share_of_groups(maps, 1024), 4) == shares.HEAT_MAPS
    assert heat_maps.share_of_groups(maps, 256) < shares.HEAT_MAPS


@pytest.mark.parametrize('backend', ['triton', 'cuda'])
@pytest.mark.parametrize(('name', 'slots'), (('gaussian_focal', 35), ('asymmetric', 40)))
def test_a_bf16_forward_of_few_slots_in_the_committed_report(backend, name, slots):
    """Of heat maps, which are nearly all 0, and of a probability that is shifted: one logarithm each."""
    keys = (f'{name}_fwd', backend, '80', 'bf16', 'sm_90')
    rows = [row for row in read(KERNELS) if (*map(row.get, ('kernel', 'backend', 'classes', 'dtype', 'arch')),) == keys]
    assert rows
    for row in rows:
        assert 0 < float(row['predicted slots/logit']) <= slots and row['spills (bytes)'] == '0', row
