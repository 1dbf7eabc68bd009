"""How much of a heat map is 0: CenterNet's targets for the photos of tests/data/coco_mini, as mmdet's head makes them.

    python -m tools.kernel_analysis.heat_maps

Each photo is as large as fits into 512 x 512, which CenterNet trains with; its 80 maps have a quarter of that. Prints the
share of the values that are 0, and of groups of neighbours the share that is not all 0: of as many as a tile of Triton's
kernels has, by which the report counts, and as a warp of the cuda backend's.
"""

import json
from pathlib import Path

import torch

from tools.benchmarks.results import ROOT

SIZE, STRIDE, CLASSES = 512, 4, 80
GROUPS = (1024, 256)
PHOTOS = ROOT / 'tests/data/coco_mini/train.json'


def heat_maps(annotations: Path) -> torch.Tensor:
    """(photos, CLASSES, SIZE / STRIDE, SIZE / STRIDE) of a file of annotations like COCO's."""
    from mmdet.models.dense_heads import CenterNetHead

    data = json.loads(annotations.read_text())
    classes = {category['id']: k for k, category in enumerate(data['categories'])}
    boxes, labels = [], []
    for photo in data['images']:
        found = [each for each in data['annotations'] if each['image_id'] == photo['id']]
        scale = SIZE / max(photo['width'], photo['height'])
        corners = torch.tensor([each['bbox'] for each in found], dtype=torch.float32).reshape(-1, 4) * scale
        boxes.append(torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:]), 1))
        labels.append(torch.tensor([classes[each['category_id']] for each in found], dtype=torch.int64))
    shape = len(boxes), CLASSES, SIZE // STRIDE, SIZE // STRIDE
    head = CenterNetHead(in_channels=1, feat_channels=1, num_classes=CLASSES)
    targets, _ = head.get_targets(boxes, labels, shape, (SIZE, SIZE))
    return targets['center_heatmap_target']


def share_of_zeros(maps: torch.Tensor) -> float:
    return (maps == 0).double().mean().item()


def share_of_groups(maps: torch.Tensor, size: int) -> float:
    """Of the groups of so many values, one behind the other, those with one that isn't 0."""
    return (maps.reshape(-1, size) != 0).any(1).double().mean().item()


def main() -> None:
    maps = heat_maps(PHOTOS)
    print(f'{len(maps)} photos: {share_of_zeros(maps):.2%} of the values are 0')
    for size in GROUPS:
        print(f'{share_of_groups(maps, size):.2%} of the groups of {size} values are not all 0')


if __name__ == '__main__':
    main()
