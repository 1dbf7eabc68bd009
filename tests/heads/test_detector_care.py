"""Whole detectors under what training does around the losses: autocast, accumulation, checkpointing, DDP, resuming."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.checkpoint import checkpoint

import focal_plugin  # noqa: F401  registers
from focal_plugin.losses import FusedLoss
from tests.heads.detectors import CUT, DATA, FUSED, ROOT, batch, dataset, error, fused, gradients, losses, model_config
from tests.processes import side_by_side

# DINO's losses jump where rounding selects another query.
LEARNT = [name for name in FUSED if not name.startswith(('equalized', 'DINO'))]
IN_BFLOAT16 = [name for name in LEARNT if name != 'TOOD, maps']  # mmcv's deformable convolution on a CPU is not


BY_TWO = (
    ('RetinaNet', ''), ('ATSS', ''), ('FCOS, maps', ''), ('FCOS, cut', ''),
    ('RTMDet, maps', ''), ('RTMDet-Ins, maps', ''), ('TOOD, maps', ''), ('DDOD, maps', ''),
    *((name, 'find_unused_parameters') for name in CUT if name != 'equalized, cut'),
    ('equalized, cut', ''), ('DINO, selected', ''),
)  # fmt: skip


pytestmark = pytest.mark.usefixtures('one_thread')


def alike() -> tuple[int, int]:
    """Two photos of one size: in a batch neither is padded."""
    sizes = {}
    for index in range(len(dataset())):
        shape = tuple(dataset()[index]['inputs'].shape)
        if shape in sizes:
            return sizes[shape], index
        sizes[shape] = index
    raise AssertionError('no two photos are of one size')


def step(model, photos: dict) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    total, log = losses(model, photos)
    model.zero_grad()
    total.backward()
    return {key: float(value) for key, value in log.items()}, gradients(model)


def step_by_autocast(model, dtype) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """By autocast and the loss scale themselves: mmengine's AmpOptimWrapper refuses a CPU."""
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**12)
    with torch.autocast('cpu', dtype=dtype):
        total, log = losses(model, batch(0, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model.zero_grad()
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    return {key: float(value) for key, value in log.items()}, gradients(model)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ('name', 'dtype'),
    [
        *((name, torch.bfloat16) for name in IN_BFLOAT16),
        # A CPU's convolutions are slow in float16.
        *(pytest.param(name, torch.float16, marks=pytest.mark.slow) for name in LEARNT),
    ],
    ids=str,
)
def test_mixed_precision(name, dtype):
    model, handed = fused(name), []

    def record(module, inputs, value):
        logits = inputs[0][0] if isinstance(inputs[0], (list, tuple)) else inputs[0]
        handed.append(logits.dtype)

    exact, exact_grads = step(model, batch(0, 1))
    for module in model.modules():
        if isinstance(module, FusedLoss):
            module.register_forward_hook(record)
    log, found = step_by_autocast(model, dtype)
    assert dtype in handed  # logits of half precision reached a loss
    assert all(grad.isfinite().all() for grad in found.values())
    # Rounding at each of some thirty layers, in and out.
    eps = torch.finfo(dtype).eps
    for key, value in exact.items():
        assert log[key] == pytest.approx(value, rel=16 * eps), key
    bound = 64 * eps
    if name == 'TOOD, maps':  # whose deformable convolutions and square roots round more: as mmdet's head
        bound = 1.01 * error(step_by_autocast(fused(name, bbox_head=dict(type='TOODHead')), dtype)[1], exact_grads)
    assert error(found, exact_grads) <= bound


@pytest.mark.sampled(4)
@pytest.mark.parametrize('name', LEARNT)
def test_gradient_accumulation(name):
    model = fused(name)
    steps = [step(model, batch(index))[1] for index in (0, 1)]
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 2)
    model.zero_grad()
    for index in (0, 1):
        with wrapper.optim_context(model):
            total, _ = losses(model, batch(index))
        wrapper.update_params(total)
    moved = {key: before[key] - p.detach() for key, p in model.named_parameters() if key in steps[0]}
    mean = {key: (steps[0][key] + steps[1][key]) / 2 for key in steps[0]}
    # The difference of weights around 1 rounds at their last place.
    assert error(moved, mean) <= 1e-4


@pytest.mark.sampled(4)
@pytest.mark.parametrize('name', LEARNT)
def test_activation_checkpointing(name):
    plain = fused(name)
    saving = fused(name, backbone=dict(with_cp=True)) if hasattr(plain.backbone, 'with_cp') else fused(name)
    assert getattr(saving.backbone, 'with_cp', True)  # RTMDet's has none
    forward = saving.bbox_head.forward
    saving.bbox_head.forward = lambda features, *rest: checkpoint(forward, features, *rest, use_reentrant=False)
    wanted, found = step(plain, batch(0, 1)), step(saving, batch(0, 1))
    assert found[0] == wanted[0]
    assert error(found[1], wanted[1]) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'unused'), BY_TWO)
def test_two_processes_are_one(name, unused, tmp_path):
    """DDP averages what two processes found for a photo each.

    ATSS, FCOS and TOOD divide by the mean count of positives over the processes, which makes that the step of one process
    on both photos. RetinaNet divides by its own, so there it is the mean of a step on each. CondInst's masks are divided by
    the process's own count, what divides GFL's boxes and RTMDet's losses is at least 1 in each, DDOD's levels are weighted
    by the process's own positives, and DINO draws its noise in each: these are two processes of a held head, or of the stock
    one.
    """
    photos = alike()
    first = by_two(name, photos, tmp_path / 'cut', unused)
    if name in ('GFL, cut', 'CondInst, cut'):
        wanted = by_two(name, photos, tmp_path / 'held', unused, 'held')
    elif name in ('RTMDet, maps', 'RTMDet-Ins, maps', 'DDOD, maps'):
        wanted = by_two(name, photos, tmp_path / 'stock', unused, 'stock')
    elif name == 'DINO, selected':
        wanted = by_two('DINO, held', photos, tmp_path / 'held', unused)
    elif name.startswith(('RetinaNet', 'equalized')):
        alone = [step(fused(name), batch(photo))[1] for photo in photos]
        assert error(alone[0], alone[1]) > 0.1  # what is averaged differs
        wanted = {key: (alone[0][key] + alone[1][key]) / 2 for key in first}
    else:
        wanted = step(fused(name), batch(*photos))[1]
    assert error(first, wanted) <= 1e-5


def by_two(name: str, photos: tuple[int, int], folder: Path, *options: str) -> dict[str, torch.Tensor]:
    """The gradients that two processes have, of a photo each."""
    folder.mkdir()
    outs = [folder / f'{rank}.pt' for rank in (0, 1)]
    side_by_side(
        ['-m', 'tests.heads.ddp_run', rank, folder / 'rendezvous', out, name, photo, *options]
        for rank, (out, photo) in enumerate(zip(outs, photos, strict=True))
    )
    first, second = map(torch.load, outs)
    assert all(torch.equal(first[key], second[key]) for key in first)
    return first


def runner(name: str, folder: Path, iterations: int, resume: bool) -> Runner:
    settings = Config.fromfile(ROOT / 'configs/_base_/coco_mini.py', import_custom_modules=False)
    data = dict(settings.train_dataloader.dataset, data_root=str(DATA))
    detector, ours = FUSED[name]
    if detector == 'DINO':  # a resumed run draws its noise anew, mmdet's too: here there is as good as none
        ours = ours | dict(dn_cfg=dict(label_noise_scale=1e-30, box_noise_scale=1e-30))
    return Runner(
        model=copy.deepcopy(model_config(detector, **ours)),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True), dataset=data
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=1e-3, momentum=0.9), clip_grad=dict(max_norm=1.0), accumulative_counts=1
        ),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
        randomness=dict(seed=0),
        resume=resume,
        default_scope='mmdet',
        log_level='ERROR',
        experiment_name=f'{folder.name}-{iterations}-{resume}',
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', (*CUT, 'equalized', 'CondInst', 'DINO, selected'))
def test_resuming_goes_on_as_if_never_stopped(name, tmp_path, monkeypatch):
    from tools.training.checkpoints import safe_checkpoints

    init_default_scope('mmdet')
    whole = runner(name, tmp_path / 'whole', 4, resume=False).train().state_dict()
    half = runner(name, tmp_path / 'parts', 2, resume=False).train().state_dict()
    with safe_checkpoints():  # as tools/train.py
        resumed = runner(name, tmp_path / 'parts', 4, resume=True).train().state_dict()
    assert whole.keys() == resumed.keys()
    assert any(not torch.equal(half[key], whole[key]) for key in whole)
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key
    if name.startswith('equalized'):
        gathered = [key for key in whole if key.startswith('bbox_head.loss_cls.')]
        assert gathered and any(not torch.equal(half[key], whole[key]) for key in gathered)
