"""Configs of another scope (mmyolo's, mmrotate's, mmseg's): the losses are found as mmdet's own classes are."""

import pytest
from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import HOOKS, MODELS, TASK_UTILS
from mmdet.utils import register_all_modules
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import DefaultScope, Registry

from focal_plugin import detectors, heads, hooks, losses, match_costs
from focal_plugin.losses import CLASSES, FusedFocalLoss

pytest_plugins = ['tests.swap_tool']

register_all_modules()

SCOPE = 'another_codebase'
REQUIRED = dict(FusedClassBalancedFocalLoss=dict(samples_per_class=[1, 2]), FusedEqualizedFocalLoss=dict(num_classes=2))


@pytest.fixture(scope='module')
def registries():
    """Those of a codebase beside mmdet."""
    return {
        root: Registry(root.name, parent=root, scope=SCOPE, locations=[])
        for root in (ROOT_MODELS, ROOT_HOOKS, ROOT_TASK_UTILS)
    }


def registered(module, registry) -> list[str]:
    return sorted(
        name for name, kind in registry.module_dict.items() if kind.__module__.startswith(f'{module.__name__}')
    )


@pytest.mark.parametrize('kind', CLASSES.values(), ids=lambda kind: kind.__name__)
def test_a_loss_is_built_by_its_scoped_name(registries, kind):
    config = dict(type=f'mmdet.{kind.__name__}', **REQUIRED.get(kind.__name__, {}))
    with DefaultScope.overwrite_default_scope(SCOPE):
        for registry in (registries[ROOT_MODELS], MODELS, ROOT_MODELS):
            assert type(registry.build(dict(config))) is kind


def test_the_plain_name_is_not_found(registries):
    with DefaultScope.overwrite_default_scope(SCOPE), pytest.raises(KeyError, match='FusedFocalLoss'):
        MODELS.build(dict(type='FusedFocalLoss'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MODELS.build(dict(type='FusedFocalLoss'))) is FusedFocalLoss


@pytest.mark.parametrize(
    ('module', 'registry', 'root'),
    [
        (losses, MODELS, ROOT_MODELS),
        (detectors, MODELS, ROOT_MODELS),
        (heads, MODELS, ROOT_MODELS),
        (hooks, HOOKS, ROOT_HOOKS),
        (match_costs, TASK_UTILS, ROOT_TASK_UTILS),
    ],
    ids=['losses', 'detectors', 'heads', 'hooks', 'costs'],
)
def test_every_name_resolves_in_the_registry_of_another_scope(registries, module, registry, root):
    names = registered(module, registry)
    assert names
    for name in names:
        assert registries[root].get(f'mmdet.{name}') is registry.get(name)
        assert registries[root].get(name) is None


def test_a_head_of_another_scope_takes_the_loss(registries):
    """Its config names the loss, which mmdet's registry builds."""

    @registries[ROOT_MODELS].register_module()
    class TheirHead(RetinaHead):
        pass

    config = dict(type='TheirHead', num_classes=2, in_channels=8)
    loss = dict(use_sigmoid=True, loss_weight=1.0)
    others = dict(
        anchor_generator=dict(type='mmdet.AnchorGenerator', scales=[8], ratios=[1.0], strides=[8]),
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
        loss_bbox=dict(type='mmdet.L1Loss'),
    )
    with DefaultScope.overwrite_default_scope(SCOPE):
        head = registries[ROOT_MODELS].build(dict(config, **others, loss_cls=dict(loss, type='mmdet.FusedFocalLoss')))
        assert type(head.loss_cls) is FusedFocalLoss
        with pytest.raises(KeyError):
            registries[ROOT_MODELS].build(dict(config, **others, loss_cls=dict(loss, type='FusedFocalLoss')))


def test_the_check_writes_the_scoped_name_where_the_config_needs_it(tool):
    config = tool.boards()
    loss = tool.request.parse_loss('FusedFocalLoss')
    assert tool.request.swapped(config, loss, '').model.bbox_head.loss_cls.type == 'FusedFocalLoss'
    config.default_scope = SCOPE
    assert tool.request.swapped(config, loss, '').model.bbox_head.loss_cls.type == 'mmdet.FusedFocalLoss'
    scoped = tool.request.parse_loss('mmdet.FusedFocalLoss')
    assert tool.request.swapped(config, scoped, '').model.bbox_head.loss_cls.type == 'mmdet.FusedFocalLoss'
