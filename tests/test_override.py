"""focal_plugin.override, in processes of its own: there is no way back from it."""

import json

import pytest

from focal_plugin import losses
from tests.processes import run
from tests.variants import VARIANTS

REPLACED = {'FocalLoss', 'QualityFocalLoss', 'VarifocalLoss', 'GaussianFocalLoss', 'FocalCustomLoss'}


@pytest.fixture(scope='module')
def overridden(tmp_path_factory) -> dict:
    """What a process sees that has imported focal_plugin, then the override, twice, and mmdet's modules after it."""
    config = tmp_path_factory.mktemp('config') / 'pure_python.py'
    config.write_text(
        'from mmdet.models.losses import QualityFocalLoss\n'
        'from mmdet.models.losses.focal_loss import FocalLoss\n'
        'losses = [dict(type=FocalLoss, use_sigmoid=True), dict(type=QualityFocalLoss, beta=2.0)]\n'
    )
    code = f"""
import importlib, json, logging, sys
import mmdet.models.losses
original = {{name: getattr(mmdet.models.losses, name) for name in {REPLACED}}}
defined_in = {{name: sys.modules[kind.__module__] for name, kind in original.items()}}
import focal_plugin, focal_plugin.override
importlib.reload(focal_plugin.override)
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
register_all_modules()
from mmdet.models.dense_heads import detr_head, dino_head

def name(kind):
    return kind.__module__.partition('.')[0] + '.' + kind.__name__

found = dict(replaced={{mmdet: name(kind) for mmdet, kind in focal_plugin.override.REPLACED.items()}}, built={{}})
for mmdet_name, kind in original.items():
    places = (mmdet.models, mmdet.models.losses, defined_in[mmdet_name])
    arguments = dict(num_classes=3) if mmdet_name == 'FocalCustomLoss' else dict()
    built = [MODELS.build(dict(type=form, **arguments)) for form in
             (mmdet_name, 'mmdet.' + mmdet_name, *(getattr(place, mmdet_name) for place in places))]
    found['built'][mmdet_name] = [name(type(loss)) for loss in built]
    assert all(isinstance(loss, kind) for loss in built)
    assert type(kind(**arguments)) is kind  # the original still builds, whose __init__ calls super(FocalLoss, self)
found['pure_python'] = [name(type(MODELS.build(loss))) for loss in Config.fromfile({str(config)!r}).losses]
found['other'] = name(type(MODELS.build(dict(type='CrossEntropyLoss'))))
found['heads'] = [name(module.QualityFocalLoss) for module in (detr_head, dino_head)]
found['quality'] = [spec for spec, kind in focal_plugin.losses.CLASSES.items()
                    if issubclass(kind, detr_head.QualityFocalLoss)]
import torch
found['maps'] = float(MODELS.build(dict(type='QualityFocalLoss'))(torch.zeros(1, 1, 2), torch.ones(1, 1, 2)))
print(json.dumps(found))
"""
    return json.loads(run(code).splitlines()[-1])


def test_covers_every_loss_that_a_class_replaces(overridden):
    classes = [kind for kind in vars(losses).values() if isinstance(kind, type) and issubclass(kind, losses.FusedLoss)]
    declared = {kind.replaces: f'focal_plugin.{kind.__name__}' for kind in classes if vars(kind).get('replaces')}
    assert overridden['replaced'] == declared
    assert declared.keys() == REPLACED


@pytest.mark.parametrize('name', sorted(REPLACED))
def test_names_and_class_objects_build_the_fused_class(overridden, name):
    """By name, with mmdet's scope, and by the class as found in mmdet.models, mmdet.models.losses and its own module."""
    assert overridden['built'][name] == [f'focal_plugin.Fused{name}'] * 5


def test_pure_python_config(overridden):
    assert overridden['pure_python'] == ['focal_plugin.FusedFocalLoss', 'focal_plugin.FusedQualityFocalLoss']


def test_other_losses_stay_mmdets(overridden):
    assert overridden['other'] == 'mmdet.CrossEntropyLoss'


def test_heads_recognise_every_loss_of_qualities(overridden):
    """DETR's and DINO's isinstance checks, which decide whether a loss gets IoUs, are against mmdet's own class."""
    assert overridden['heads'] == ['mmdet.QualityFocalLoss'] * 2
    assert {name for name, variant in VARIANTS.items() if variant.scored} == set(overridden['quality'])


def test_maps_are_summed_as_mmdet_sums_them(overridden):
    """Over dimension 1: the mean of two sums of one value each, 0.25 log 2."""
    assert overridden['maps'] == pytest.approx(0.25 * 0.6931472)


def test_stock_configs_run_on_fused_kernels():
    """Configs as mmdet ships them: what their heads hold, and a step of RetinaNet's head through the native kernel."""
    code = """
from pathlib import Path
import focal_plugin.override, mmdet, torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData
register_all_modules()
configs = Path(mmdet.__file__).parent / '.mim' / 'configs'

def head(path):
    model = Config.fromfile(configs / path).model
    return MODELS.build(model.bbox_head | dict(train_cfg=model.get('train_cfg'), test_cfg=model.get('test_cfg')))

print(type(head('gfl/gfl_r50_fpn_1x_coco.py').loss_cls).__name__)
print(type(head('vfnet/vfnet_r50_fpn_1x_coco.py').loss_cls).__name__)
print(type(head('centernet/centernet_r18_8xb16-crop512-140e_coco.py').loss_center_heatmap).__name__)
print(type(head('v3det/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py').loss_cls).__name__)
retina = head('retinanet/retinanet_r50_fpn_1x_coco.py')
features = [torch.randn(1, 256, 64 // 2**level, 64 // 2**level) for level in range(5)]
image = dict(img_shape=(512, 512), pad_shape=(512, 512))
boxes = InstanceData(bboxes=torch.tensor([[20., 30., 200., 220.]]), labels=torch.tensor([3]))
with focal_plugin.use_backend('native'):
    sum(retina.loss_by_feat(*retina(features), [boxes], [image])['loss_cls']).backward()
print(type(retina.loss_cls).__name__, bool(retina.retina_cls.weight.grad.abs().sum() > 0))
"""
    assert run(code).splitlines()[-5:] == [
        'FusedQualityFocalLoss',
        'FusedVarifocalLoss',
        'FusedGaussianFocalLoss',
        'FusedFocalCustomLoss',
        'FusedFocalLoss True',
    ]


def test_a_class_object_imported_before_stays_mmdets_and_is_named():
    """It works as ever, for a subclass too."""
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format='%(message)s')
from mmdet.models.losses import FocalLoss
class Mine(FocalLoss):
    pass
import focal_plugin.override
from mmdet.registry import MODELS
import torch
for kind in (FocalLoss, Mine):
    loss = MODELS.build(dict(type=kind))
    print(type(loss) is kind, round(float(loss(torch.zeros(1, 1), torch.ones(1, 1))), 6))
"""
    assert run(code).splitlines()[-3:] == [  # onedl's packages print lines before
        "__main__ imported mmdet's FocalLoss before focal_plugin.override: there the name stays mmdet's own class",
        *['True 0.043322'] * 2,  # 0.25 * 0.5**2 * log 2
    ]


@pytest.mark.sampled(1)
@pytest.mark.parametrize('has_gpu, replaced', [(True, 'mmdet'), (False, 'focal_plugin')])
def test_a_gpu_without_a_compiler_keeps_mmdets_losses(has_gpu, replaced):
    """The torch backend, which would serve there, is slower than they are; on a machine without a GPU it is the faster."""
    code = f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, format='%(message)s')
import os, torch
os.environ['CUDA_VISIBLE_DEVICES'] = '0'  # mmengine's logger asks PyTorch otherwise
torch.cuda.is_available = lambda: {has_gpu}
from focal_plugin import backend
backend.HAS_TRITON = backend.HAS_NVRTC = False
import focal_plugin.override, mmdet.models.losses
from mmdet.registry import MODELS
from mmdet.models.dense_heads import RetinaHead
for name in {sorted(REPLACED)}:
    for kind in (MODELS.get(name), getattr(mmdet.models.losses, name)):
        print(kind.__module__.partition('.')[0])
"""
    *said, last = run(code).splitlines()
    lines = [line for line in (*said, last) if line in ('mmdet', 'focal_plugin')]
    assert lines == [replaced] * 2 * len(REPLACED)
    assert has_gpu == any('leaves mmdet its own losses' in line for line in said)
