"""The classes of a training set: of every part of it, built or as a config, and what the hook and the check say of them."""

from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset, MultiImageMixDataset
from mmdet.datasets import ConcatDataset as ConcatDatasetOfMMDet
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch import nn
from torch.utils.data import ConcatDataset as ConcatDatasetOfTorch
from torch.utils.data import Dataset, Subset, TensorDataset

from focal_plugin import config_dir, hooks, metainfo
from focal_plugin.hooks import FusedLossCheckHook

register_all_modules()

WHOLE, FIRST, SECOND = (metainfo.TRAINING, *(f'part {number} of the training set' for number in (1, 2)))
FOUR, THREE, OTHERS = ('a', 'b', 'c', 'd'), ('a', 'b', 'c'), ('a', 'b', 'd', 'c')


class Photos(BaseDataset):
    def __init__(self, classes=None, **kwargs) -> None:
        super().__init__(metainfo=None if classes is None else dict(classes=classes), **kwargs)

    def load_data_list(self) -> list[dict]:
        return [dict(number=0)]

    def get_cat_ids(self, index: int) -> list[int]:
        return [0]


class Wrapper(Dataset):
    """A user's own, which says nothing of classes."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset


class Renaming(Wrapper):
    """A user's own with classes of its own."""

    @property
    def metainfo(self) -> dict:
        return dict(classes=THREE)


def of_parts(kind, first=FOUR, second=THREE, **options):
    return kind([Photos(first), Photos(second)], **options)


def config_of_parts(kind, **options) -> dict:
    """As a config: wrappers take no built concatenation."""
    return dict(type=kind, datasets=[Photos(FOUR), Photos(THREE)], **options)


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ('dataset', 'classes'),
    [
        (lambda: Photos(FOUR), {WHOLE: FOUR}),
        (lambda: Photos(), {}),
        (lambda: TensorDataset(), {}),
        (lambda: None, {}),
        (lambda: SimpleNamespace(metainfo=None), {}),
        (lambda: Wrapper(Photos(FOUR)), {WHOLE: FOUR}),
        (lambda: Renaming(Photos(FOUR)), {WHOLE: THREE}),
        (lambda: Subset(Photos(FOUR), [0]), {WHOLE: FOUR}),
        (lambda: RepeatDataset(Photos(FOUR), 2), {WHOLE: FOUR}),
        (lambda: ClassBalancedDataset(Photos(FOUR), 1.0), {WHOLE: FOUR}),
        (lambda: MultiImageMixDataset(Photos(FOUR), []), {WHOLE: FOUR}),
        (lambda: of_parts(ConcatDatasetOfMMDet), {FIRST: FOUR, SECOND: THREE}),
        (lambda: of_parts(ConcatDatasetOfTorch), {FIRST: FOUR, SECOND: THREE}),
        # It hands on the metainfo of the first alone.
        (lambda: of_parts(ConcatDataset, ignore_keys='classes'), {FIRST: FOUR, SECOND: THREE}),
        (lambda: of_parts(ConcatDatasetOfTorch, second=None), {FIRST: FOUR}),
        (lambda: RepeatDataset(config_of_parts(ConcatDataset, ignore_keys='classes'), 2), {FIRST: FOUR, SECOND: THREE}),
        # Its metainfo is the list of the parts'.
        (lambda: SimpleNamespace(metainfo=of_parts(ConcatDatasetOfMMDet).metainfo), {FIRST: FOUR, SECOND: THREE}),
        (
            lambda: ConcatDatasetOfTorch([Photos(FOUR), of_parts(ConcatDatasetOfTorch)]),
            {FIRST: FOUR, 'part 2.1 of the training set': FOUR, 'part 2.2 of the training set': THREE},
        ),
    ],
    ids=[
        'one with classes',
        'one without',
        'no metainfo',
        'no data set',
        'metainfo None',
        "a user's wrapper",
        "a user's wrapper with classes",
        'a subset',
        'repeated',
        'balanced',
        'mixed',
        "mmdet's concatenation",
        "torch's concatenation",
        "mmengine's concatenation",
        'a part without classes',
        'a concatenation repeated',
        'a list as metainfo',
        'a concatenation in another',
    ],
)
def test_every_part_of_a_built_data_set_is_found(dataset, classes):
    assert metainfo.of_dataset(dataset()) == classes


PHOTOS = dict(type='CocoDataset', metainfo=dict(classes=FOUR))
COCO = CocoDataset.METAINFO['classes']


@pytest.mark.parametrize(
    ('dataset', 'classes'),
    [
        (PHOTOS, {WHOLE: FOUR}),
        (dict(type='CocoDataset'), {WHOLE: COCO}),
        (dict(type='mmdet.CocoDataset'), {WHOLE: COCO}),
        (dict(type=CocoDataset), {WHOLE: COCO}),
        (dict(type=CocoDataset, metainfo=None), {WHOLE: COCO}),
        (dict(type=CocoDataset, metainfo=dict(classes=THREE)), {WHOLE: THREE}),
        (dict(type='mmyolo.YOLOv5CocoDataset', metainfo=dict(classes=THREE)), {WHOLE: THREE}),
        (dict(type='OfNoRegistry'), {}),
        (dict(), {}),
        (None, {}),
        (dict(type=RepeatDataset, times=2, dataset=PHOTOS), {WHOLE: FOUR}),
        (
            dict(type='ConcatDataset', datasets=[PHOTOS, dict(type=CocoDataset)]),
            {FIRST: FOUR, SECOND: COCO},
        ),
        (
            dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[PHOTOS, dict(type='?')])),
            {FIRST: FOUR},
        ),
    ],
    ids=[
        'classes written',
        'classes of the type',
        'a type with its scope',
        'a class as type',
        'metainfo None',
        'a class and classes written',
        'a type that is not installed',
        'an unknown type',
        'no type',
        'no data set',
        'repeated',
        'a concatenation',
        'a concatenation repeated',
    ],
)
@pytest.mark.parametrize('wrap', [dict, lambda loader: Config(loader)._cfg_dict], ids=['dict', 'ConfigDict'])
def test_every_part_of_a_config_is_found(dataset, classes, wrap):
    assert metainfo.of_config(wrap(dict(dataset=dataset))) == classes


@pytest.mark.parametrize('loader', [None, {}, dict(batch_size=2)], ids=['None', 'empty', 'no data set'])
def test_a_loader_without_a_data_set_has_no_classes(loader):
    assert metainfo.of_config(loader) == {}


def test_a_file_of_names_is_read_as_mmengine_reads_it(tmp_path):
    file = tmp_path / 'classes.txt'
    file.write_text('person\ncar\n')
    config = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=str(file))))
    assert metainfo.of_config(config) == {WHOLE: ['person', 'car']}


@pytest.mark.parametrize(
    ('classes', 'remedy'),
    [
        ('person', "write metainfo=dict(classes=('person',))"),
        ('person, car', "write metainfo=dict(classes=('person', 'car'))"),
        (80, 'write their names'),
    ],
    ids=['a name', 'names in one string', 'a number'],
)
def test_what_is_no_list_of_names_is_refused(classes, remedy):
    (sentence,) = metainfo.refusals({WHOLE: classes, SECOND: FOUR})
    assert sentence.startswith(f'the training set has classes={classes!r}') and remedy in sentence
    assert metainfo.counts({WHOLE: classes, SECOND: FOUR}) == {SECOND: 4}


def test_labels_that_mean_another_class_are_noted():
    (sentence,) = metainfo.notes({WHOLE: FOUR, metainfo.VALIDATION: OTHERS})
    assert sentence == "label 2 is 'c' in the training set and 'd' in the validation set"
    assert list(metainfo.notes({WHOLE: FOUR, metainfo.VALIDATION: list(THREE)})) == []


# The hook.


def retinanet() -> nn.Module:
    config = Config.fromfile(f'{config_dir()}/retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    return MODELS.build(config.model)


def checked(dataset, validation=None, model=None) -> None:
    val_loop = None if validation is None else SimpleNamespace(dataloader=SimpleNamespace(dataset=validation))
    loader = SimpleNamespace(dataset=dataset)
    FusedLossCheckHook().before_train(
        SimpleNamespace(model=model or retinanet(), train_dataloader=loader, val_loop=val_loop)
    )


def test_a_string_as_classes_stops_training_with_the_tuple_to_write():
    with pytest.raises(ValueError) as raised:
        checked(Photos('person'))
    assert "write metainfo=dict(classes=('person',))" in str(raised.value)
    assert 'num_classes=6' not in str(raised.value)


@pytest.mark.parametrize(
    'dataset',
    [
        lambda: of_parts(ConcatDatasetOfMMDet),
        lambda: of_parts(ConcatDataset, ignore_keys='classes'),
        lambda: RepeatDataset(config_of_parts(ConcatDatasetOfMMDet), 2),
    ],
    ids=["mmdet's", "mmengine's", 'repeated'],
)
def test_parts_of_other_numbers_stop_training(dataset):
    with pytest.raises(ValueError, match='part 1 of the training set 4 classes, part 2 of the training set 3 classes'):
        checked(dataset())


@pytest.mark.parametrize('dataset', [Photos, TensorDataset, lambda: None], ids=['no classes', 'no metainfo', 'none'])
def test_a_data_set_that_says_nothing_is_let_through(dataset):
    checked(dataset())


def test_parts_and_validation_of_other_names_are_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(hooks, 'print_log', lambda text, logger: logged.append(text))
    checked(of_parts(ConcatDatasetOfMMDet, FOUR, OTHERS), validation=Photos(('a', 'x')))
    assert logged == [
        f"FusedLossCheckHook: label 2 is 'c' in {FIRST} and 'd' in {SECOND}",
        f"FusedLossCheckHook: label 1 is 'b' in {FIRST} and 'x' in the validation set",
    ]


def test_a_head_that_reads_text_has_tokens_and_not_classes():
    """mmdet's MM Grounding DINO has 256 channels, whatever the data set."""
    loss_cls = dict(type='FusedFocalLoss', use_sigmoid=True)
    config = dict(type='GroundingDINOHead', num_classes=256, contrastive_cfg=dict(max_text_len=256), loss_cls=loss_cls)
    sentences = hooks.findings(MODELS.build(config), dataset_classes=80)
    assert not any('num_classes' in sentence for sentence in sentences)
