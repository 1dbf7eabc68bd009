"""Configs of instance segmentation: each takes a training step on two photos with masks.

What they share with all configs (they parse, build, fit their heads, change nothing but losses) is in test_configs.py.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from matplotlib import image
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope

from focal_plugin.losses import FusedMaskFocalLoss
from tests.configs import INSTANCE, ROOT, build_to_train, fused, name, num_classes, parsed, read, training_step

DATA = ROOT / 'tests/data/coco_mini'
DEMO = [path for path in INSTANCE if '_coco-mini_' in path.stem]
MASK_FOCAL = [path for path in INSTANCE if path.stem.endswith(('fused-mask-focal', 'fused-focal-custom'))]


@pytest.fixture(scope='module', autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@cache
def photos() -> dict:
    """Two photos of a few large objects each, as the small configs train on them."""
    init_default_scope('mmdet')
    settings = Config.fromfile(ROOT / 'configs/_base_/coco_mini.py', import_custom_modules=False)
    dataset = DATASETS.build(dict(settings.train_dataloader.dataset, data_root=str(DATA)))
    by_name = {dataset.get_data_info(index)['img_id']: index for index in range(len(dataset))}
    return pseudo_collate([dataset[by_name[photo]] for photo in (419173, 491)])


def mask_gradients(model: torch.nn.Module) -> float:
    """The largest gradient of what predicts masks."""
    heads = [
        module for key, module in model.named_modules() if key.rpartition('.')[2] in ('mask_head', 'panoptic_head')
    ]
    if not heads:
        heads = [model.bbox_head]
    return max(p.grad.abs().max().item() for head in heads for p in head.parameters() if p.grad is not None)


def step(path: Path) -> dict[str, float]:
    config = read(path)
    # RTMDet's own pipeline pads its photos.
    config.model.data_preprocessor.setdefault('pad_size_divisor', 32)
    config.model.data_preprocessor.setdefault('pad_mask', True)
    # Mask2Former's pads to 1024 x 1024, with which a step takes 13 GB on a CPU.
    config.model.data_preprocessor.pop('batch_augments', None)
    MessageHub.get_current_instance().update_info('iter', 1000)  # BoxInst warms up by the runner's count
    model = build_to_train(config)
    log = training_step(model, photos())
    assert any('mask' in key and value > 0 for key, value in log.items()), log
    assert mask_gradients(model) > 0
    return log


@pytest.mark.sampled(1)
@pytest.mark.parametrize('path', DEMO, ids=name)
def test_small_models_take_a_training_step(path):
    step(path)


@pytest.mark.slow
@pytest.mark.parametrize('path', [path for path in INSTANCE if path not in DEMO], ids=name)
def test_models_take_a_training_step(path):
    step(path)


@pytest.mark.parametrize('path', MASK_FOCAL, ids=name)
def test_mask_loss_knows_what_its_head_hands_over(path):
    """Decoupled SOLO and QueryInst multiply or take sigmoids themselves; the others hand over logits."""
    losses = [loss for _, loss in fused(parsed(path).model, ('model',)) if loss.type == 'FusedMaskFocalLoss']
    assert losses
    hands_probabilities = path.stem.startswith(('decoupled-solo', 'queryinst'))
    assert {bool(loss.get('activated', False)) for loss in losses} == {hands_probabilities}


@pytest.mark.parametrize(
    ('stem', 'head', 'stages'),
    [
        ('queryinst/queryinst_r50_fpn_1x_coco_fused-focal', 'bbox_head', 6),
        ('queryinst/queryinst_r50_fpn_1x_coco_fused-mask-focal', 'mask_head', 6),
        ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco_fused-focal-custom', 'bbox_head', 3),
    ],
)
def test_every_stage_has_the_loss(stem, head, stages):
    heads = parsed(ROOT / f'configs/{stem}.py').model.roi_head[head]
    assert len(list(fused(heads, (head,)))) == len(heads) == stages


def test_box_heads_have_no_channel_for_the_background():
    config = read(ROOT / 'configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco_fused-focal-custom.py')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(config.model)
    assert model.roi_head.bbox_head.fc_cls.out_features == num_classes(config) == 80
    assert isinstance(model.roi_head.mask_head.loss_mask, FusedMaskFocalLoss)


def test_photos_and_masks_are_whole():
    for file, count, objects in (('train.json', 67, 405), ('val.json', 14, 102)):
        coco = json.loads((DATA / file).read_text())
        assert (len(coco['images']), len(coco['annotations']), len(coco['categories'])) == (count, objects, 80)
        for photo in coco['images']:
            assert image.imread(DATA / 'images' / photo['file_name']).shape[:2] == (photo['height'], photo['width'])
    named = {line.split('\t')[0] for line in (DATA / 'ATTRIBUTION.tsv').read_text().splitlines()[1:]}
    assert named == {path.name for path in (DATA / 'images').iterdir()}
