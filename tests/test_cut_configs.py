"""The configs of many classes: they train as mmdet's own head and loss do, on labels as their data sets give them."""

import csv
import json
import pickle
import shutil

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from focal_plugin import metainfo
from focal_plugin.hooks import findings
from tests.configs import (
    BOARDS,
    CONFIGS,
    FOLDER,
    ROOT,
    WITH_BASE,
    build_to_train,
    mmdet_base,
    name,
    noise,
    num_classes,
    read,
    training_step,
    with_mmdets_losses,
)

CUT = [path for path in CONFIGS if path.parent.name == 'cut' and path not in BOARDS]
OBJECTS365 = FOLDER / 'cut/retinanet_r50_fpn_1x_objects365v2_fused-head-cut.py'
OPENIMAGES = FOLDER / 'cut/retinanet_r50_fpn_32xb2-1x_openimages_fused-head-cut.py'
V3DET = FOLDER / 'cut/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x_fused-head-cut.py'
SMALL = dict(
    # The base's norms keep statistics that random weights do not have.
    backbone=dict(depth=18, base_channels=16, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    # A group of one channel would be nothing but zeros where a level is one pixel, and FCOS divides by their norm.
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=dict(type='GN', num_groups=8)),
)


def small(config: Config) -> Config:
    config.merge_from_dict(dict(model=SMALL))
    return config


def mmdets(path) -> Config:
    """mmdet's own config; of LVIS it has none."""
    return mmdet_base(path) if path in WITH_BASE else with_mmdets_losses(read(path))


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=path.stem, marks=[] if path in (V3DET, OBJECTS365) else pytest.mark.slow) for path in CUT],
)
def test_a_step_is_that_of_mmdets_head_and_loss(path):
    config = small(read(path))
    assert config.model.bbox_head.cut is True
    config.model.bbox_head.cut = 0.5  # MiB: several chunks of these maps
    ours, theirs, batch = build_to_train(config), build_to_train(small(mmdets(path))), noise(config)
    expected = training_step(theirs, batch)
    expected.pop('acc_classes', None)  # FocalCustomLoss's
    assert training_step(ours, batch) == {key: pytest.approx(value, rel=1e-5) for key, value in expected.items()}
    right, found = gradients(theirs), gradients(ours)
    assert found.keys() == right.keys()
    for key, gradient in right.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=5e-5 * gradient.abs().max().item())


@pytest.mark.parametrize('path', CUT, ids=name)
def test_the_head_has_the_classes_of_its_data(path):
    dataset = read(path).train_dataloader.dataset
    kind = DATASETS.get((dataset.get('dataset') or dataset)['type'])
    listed = kind.METAINFO.get('classes')  # OpenImages and V3Det read theirs from a file
    assert num_classes(read(path)) == (len(listed) if listed else {OPENIMAGES: 601, V3DET: 13204}[path])


def box(side: float) -> list[float]:
    """Corners, relative to the photo."""
    return [0.1, 0.2, 0.1 + side, 0.2 + side]


def openimages(folder, classes: int) -> dict[str, list[int]]:
    """Writes two photos in the manner of OpenImages; gives the labels of each."""
    photos = sorted((ROOT / 'tests/data/boards/images').glob('*.jpg'))[:2]
    labels = {photos[0].stem: [0, 7], photos[1].stem: [classes - 1]}
    for part in ('OpenImages/train', 'annotations'):
        (folder / part).mkdir(parents=True)
    for photo in photos:
        shutil.copy(photo, folder / 'OpenImages/train')
    annotations, ids = folder / 'annotations', [f'/m/{label:04}' for label in range(classes)]
    with (annotations / 'class-descriptions-boxable.csv').open('w') as file:
        csv.writer(file).writerows((each, f'name of {each}') for each in ids)
    below = [dict(LabelName=each) for each in ids[2:]]
    hierarchy = dict(
        LabelName='/m/entity', Subcategory=[dict(LabelName=ids[0]), dict(LabelName=ids[1], Subcategory=below)]
    )
    (annotations / 'bbox_labels_600_hierarchy.json').write_text(json.dumps(hierarchy))
    with (annotations / 'oidv6-train-annotations-bbox.csv').open('w') as file:
        rows = csv.writer(file)
        rows.writerow('ImageID Source LabelName Confidence XMin XMax YMin YMax'.split() + ['flag'] * 5)
        for photo, of_photo in labels.items():
            for i, label in enumerate(of_photo):
                left, top, right, bottom = box(0.2 + 0.2 * i)
                # Flags: occluded, truncated, a group, a depiction, seen from inside. The second box is a group.
                rows.writerow([photo, 'x', ids[label], 1, left, right, top, bottom, 0, 0, i, 0, 0])
    metas = [dict(filename=f'{photo}.jpg', ori_shape=(240, 320, 3)) for photo in labels]
    (annotations / 'train-image-metas.pkl').write_bytes(pickle.dumps(metas))
    return labels


def v3det(folder, classes: int) -> dict[int, list[int]]:
    """The same in the manner of V3Det."""
    photos = sorted((ROOT / 'tests/data/boards/images').glob('*.jpg'))[:2]
    labels = {0: [0, 7], 1: [classes - 1]}
    (folder / 'annotations').mkdir()
    names = [f'class {label}' for label in range(classes)]
    (folder / 'annotations/category_name_13204_v3det_2023_v1.txt').write_text('\n'.join(names))
    boxes = [(photo, label, 0.2 + 0.2 * i) for photo, of in labels.items() for i, label in enumerate(of)]
    annotations = [
        dict(
            id=number, image_id=photo, category_id=label + 1, iscrowd=0,
            bbox=[32, 48, side * 320, side * 240], area=side**2 * 320 * 240,
        )
        for number, (photo, label, side) in enumerate(boxes)
    ]  # fmt: skip
    content = dict(
        images=[dict(id=i, file_name=str(photo), height=240, width=320) for i, photo in enumerate(photos)],
        annotations=annotations,
        categories=[dict(id=label + 1, name=each) for label, each in enumerate(names)],
    )
    (folder / 'annotations/v3det_2023_v1_train.json').write_text(json.dumps(content))
    return labels


@pytest.mark.parametrize(('path', 'write'), [(OPENIMAGES, openimages), (V3DET, v3det)], ids=['OpenImages', 'V3Det'])
def test_labels_come_as_the_loss_takes_them(path, write, tmp_path):
    """One label in [0, C) a box, the last class included, and no box is left out; and the hook counts the classes."""
    config = small(read(path))
    labels = write(tmp_path, num_classes(config))
    init_default_scope('mmdet')
    dataset = config.train_dataloader.dataset
    inner = dataset.get('dataset') or dataset
    inner.data_root = f'{tmp_path}/'
    inner.pipeline = [step for step in inner.pipeline if 'Resize' not in step['type']]
    built = DATASETS.build(dataset)
    samples = {sample['data_samples'].img_id: sample for sample in (built[i] for i in range(len(built)))}
    found = {photo: sample['data_samples'].gt_instances.labels.tolist() for photo, sample in samples.items()}
    assert found == labels
    counts = metainfo.counts(metainfo.of_dataset(built))
    model = build_to_train(config)
    assert list(findings(model, counts)) == []
    model.bbox_head.num_classes -= 1
    assert any(f'{num_classes(config)} classes' in each for each in findings(model, counts))
    model.bbox_head.num_classes += 1
    training_step(model, pseudo_collate(list(samples.values())))
