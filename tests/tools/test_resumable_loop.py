"""The loop that compare_losses trains by: the same however often it is interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from tools.training import train_one


class ToyData(BaseDataset):
    def load_data_list(self):
        return [dict(number=i) for i in range(6)]

    def __getitem__(self, index):
        return dict(inputs=torch.tensor([index, np.random.rand()], dtype=torch.float32))


class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(count=len(results))


class ToyModel(BaseModel):
    """Order of data, their noise and dropout all show in the weights."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        value = self.layer(torch.dropout(torch.stack(list(inputs)), 0.5, self.training)).square().mean()
        return dict(loss=value) if mode == 'loss' else [value]


class Interrupt(Hook):
    def __init__(self, after: int | None) -> None:
        self.after, self.validated = after, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.after:
            raise KeyboardInterrupt

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.validated.append(runner.iter)


def train_toy(folder: Path, loop: dict, sampler: dict, stop: int | None = None) -> tuple[Runner, list[int]]:
    torch.manual_seed(0)
    interrupt = Interrupt(stop)
    loader = dict(batch_size=2, num_workers=0, dataset=ToyData())
    runner = Runner(
        ToyModel(),
        str(folder),
        train_dataloader=dict(loader, sampler=sampler),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=Evaluator(ToyMetric()),
        train_cfg=dict(type='ResumableTrainLoop', seed=1, max_iters=8, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=dict(type='StepLR', by_epoch=True, step_size=1, gamma=0.5),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2)),
        resume=True,
        randomness=dict(seed=1),
        experiment_name=f'{folder.name}_{stop}',
    )
    runner.register_hook(interrupt)
    if stop:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    else:
        runner.train()
    return runner, interrupt.validated


@pytest.mark.parametrize('stop', [4, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 7))])
@pytest.mark.parametrize(
    ('loop', 'sampler', 'validations'),
    [
        (dict(max_epochs=4), dict(type='DefaultSampler', shuffle=True), [3, 6, 8]),
        (dict(val_every=4), dict(type='InfiniteSampler', shuffle=True), [4, 8]),
    ],
    ids=['epochs', 'iterations'],
)
def test_an_interrupted_loop_ends_as_a_whole_one(tmp_path, loop, sampler, validations, stop):
    whole, seen = train_toy(tmp_path / 'whole', loop, sampler)
    assert seen == validations
    _, first = train_toy(tmp_path / 'parts', loop, sampler, stop)
    with train_one.safe_checkpoints():
        resumed, second = train_toy(tmp_path / 'parts', loop, sampler)
    assert sorted({*first, *second}) == validations
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
