"""A pytest plugin: the modules of focal_plugin.check_swap, and small detectors for them."""

from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
from mmengine.config import Config

from focal_plugin.check_swap import report, request, training_step

ROOT = Path(__file__).parents[1]
MMDET = Path(mmdet.__file__).parent / '.mim/configs'


def boards(**head) -> Config:
    """RetinaNet on four classes of boards, with changes of its head."""
    config = Config.fromfile(ROOT / 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py')
    for name, value in head.items():
        config.model.bbox_head[name] = value
    return config


def small(path: str, **options) -> Config:
    """A config of mmdet's on ResNet-18."""
    config = Config.fromfile(MMDET / path)
    config.model.backbone.update(depth=18, init_cfg=None)
    if 'neck' in config.model:
        config.model.neck.in_channels = [64, 128, 256, 512]
    config.merge_from_dict(options)
    return config


@pytest.fixture(scope='module')
def tool():
    """The modules of the tool - what is asked for, the training step, the report - and configs for them."""
    with pytest.MonkeyPatch.context() as patch:
        tool = SimpleNamespace(request=request, steps=training_step, report=report)
        patch.setattr(tool.steps, 'SIZE', 128)
        tool.boards, tool.small = boards, small
        tool.check = lambda config, text, only='': tool.report.check(config, tool.request.parse_loss(text), only)
        yield tool
