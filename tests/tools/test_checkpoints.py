"""The tools load what training with mmengine saves, and no checkpoint that holds anything else."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import BaseModel
from mmengine.optim import scheduler
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

ROOT = Path(__file__).parents[2]
CONFIG = 'configs/retinanet/retinanet_r18_fpn_boards_fused-focal.py'


@pytest.fixture(scope='module')
def tool():
    from tools.training import checkpoints

    return checkpoints


class Calls:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def harmful(folder: Path) -> tuple[Path, Path]:
    """A checkpoint, and the file that it creates where it is loaded as any pickle is."""
    checkpoint, trace = folder / 'harmful.pth', folder / 'trace'
    meta = dict(epoch=1, iter=1, cfg='', dataset_meta=Calls(exec, f'open({str(trace)!r}, "w")'))
    torch.save(dict(state_dict={}, meta=meta), checkpoint)
    torch.load(checkpoint, weights_only=False)
    trace.unlink()  # it was there: the file does harm
    return checkpoint, trace


def started(*command, **environment) -> subprocess.CompletedProcess:
    left_out = ('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD')
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**{key: value for key, value in os.environ.items() if key not in left_out}, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize('script', ['test', pytest.param('train', marks=pytest.mark.slow)])
def test_a_harmful_checkpoint_is_refused_with_a_sentence(tmp_path, script):
    checkpoint, trace = harmful(tmp_path)
    given = [checkpoint] if script == 'test' else ['--resume', checkpoint]
    done = started(f'tools/{script}.py', CONFIG, *given, '--work-dir', tmp_path)
    assert done.returncode == 1
    assert not trace.exists()
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith('the checkpoint was not loaded: it holds exec, which is neither a tensor nor')
    assert 'set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 for this command' in sentence


@pytest.mark.slow
def test_a_comparison_refuses_it_too(tmp_path):
    """Its trainings resume from the last checkpoint in their folders."""
    from tools.training.compare_losses import parse_loss, read_config, train, training_config

    checkpoint, trace = harmful(tmp_path)
    loss = parse_loss('FusedFocalLoss')
    config = training_config(read_config(ROOT / CONFIG, None), loss, '', 1, None)
    (tmp_path / 'config.py').write_text(config.pretty_text)
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    assert not train(loss, tmp_path) and not trace.exists()
    said = (tmp_path / 'log.txt').read_text().splitlines()[-1]
    assert said.startswith('the checkpoint was not loaded: it holds exec, which')


@pytest.mark.slow
def test_the_variable_that_the_sentence_names_loads_it(tmp_path):
    checkpoint, trace = harmful(tmp_path)
    given = [checkpoint, '--work-dir', tmp_path, '--cfg-options', 'test_dataloader.dataset.indices=1']
    done = started('tools/test.py', CONFIG, *given, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1')
    assert trace.exists() and done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize('write', [torch.save, pickle.dump], ids=['an archive', 'a bare pickle'])
@pytest.mark.parametrize(
    ('held', 'name'),
    [
        (Calls(os.system, 'true'), 'holds posix.system, which'),
        (Calls(getattr, HistoryBuffer, 'update'), "'update'), which"),
        (Calls(getattr, np.zeros(1), 'tofile'), "'tofile'), which"),
        (Path('a'), 'holds '),
        (np.array([Calls(os.system, 'true')]), 'holds '),
    ],
    ids=['a command', 'another method of an allowed class', 'a method of an array', 'a path', 'an array of objects'],
)
def test_what_is_not_of_a_training_is_refused(tool, held, name, write):
    file = io.BytesIO()
    write(dict(meta=held), file)
    file.seek(0)
    with pytest.raises(SystemExit, match='was not loaded') as exit, tool.safe_checkpoints():
        torch.load(file, weights_only=False)
    if write is torch.save:
        assert name in exit.value.code


def loaded(tool, value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    with tool.safe_checkpoints():
        return torch.load(file)


@pytest.mark.parametrize('dtype', np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?')
def test_numbers_and_arrays_of_numpy_load(tool, dtype):
    array = np.arange(3).astype(dtype)
    assert loaded(tool, array).tolist() == array.tolist()
    assert loaded(tool, array[1]) == array[1] and loaded(tool, array[1]).dtype == dtype


@pytest.mark.parametrize('module', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_arrays_of_the_other_numpy_load(tool, module):
    """NumPy 2 renamed the module that a pickle of an array names."""
    file = io.BytesIO()
    torch.save([np.arange(3.0), np.float64(2)], file)
    written = np.zeros(0).__reduce__()[0].__module__.encode()
    renamed = io.BytesIO()
    with_other_name(file, renamed, written, module.encode())
    with tool.safe_checkpoints():
        array, number = torch.load(renamed)
    assert array.tolist() == [0, 1, 2] and number == 2


def with_other_name(archive: io.BytesIO, out: io.BytesIO, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(archive) as read, zipfile.ZipFile(out, 'w') as write:
        for name in read.namelist():
            data = read.read(name)
            if name.endswith('data.pkl'):
                assert old in data
                data = data.replace(old + b'\n', new + b'\n')
            write.writestr(name, data)
    out.seek(0)


def schedulers() -> list[str]:
    return sorted(name for name in dir(scheduler) if name.endswith(('LR', 'Momentum')))


@pytest.mark.parametrize('name', schedulers())
def test_every_scheduler_of_mmengine_loads(tool, name):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    required = {
        'CosineRestart': dict(periods=[2, 3], restart_weights=[1, 1], eta_min=0.0),
        'Exponential': dict(gamma=0.9),
        'MultiStep': dict(milestones=[2]),
        'OneCycle': dict(eta_max=1.0, total_steps=9),
        'Step': dict(step_size=2),
        'ReduceOnPlateau': dict(monitor='loss'),
    }
    stem = name.removesuffix('LR').removesuffix('Momentum')
    state = getattr(scheduler, name)(optimizer, **required.get(stem, {})).state_dict()
    assert loaded(tool, state) == state


def test_objects_of_mmengine_load(tool):
    """Older versions keep the whole message hub; a data set's metainfo is a ConfigDict where the config nests."""
    hub = MessageHub.get_instance('test_objects_of_mmengine_load')
    hub.update_scalar('train/loss', 1.5)
    meta = loaded(tool, dict(hub=hub, dataset_meta=ConfigDict(classes=('a',), palette=ConfigDict(a=[1, 2]))))
    assert meta['hub'].get_scalar('train/loss').statistics('mean') == 1.5
    assert meta['dataset_meta'] == dict(classes=('a',), palette=dict(a=[1, 2]))


class Photos(Dataset):
    def __init__(self) -> None:
        self.metainfo = dict(classes=('a', 'b'), palette=np.zeros((2, 3), np.uint8))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((2,), float(index)))


class Score(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(1)

    def compute_metrics(self, results) -> dict:
        return dict(score=np.float64(len(results)), per_class=np.ones(2))


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        value = self.layer(torch.stack(list(inputs))).square().mean()
        return dict(loss=value) if mode == 'loss' else [value]


def trained(folder: Path, epochs: int, resume: bool) -> Runner:
    torch.manual_seed(0)
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Photos())
    runner = Runner(
        Model(),
        str(folder),
        train_dataloader=loader,
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=Evaluator(Score()),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[
            dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False),
            dict(type='LinearMomentum', begin=0, end=2),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='score', rule='greater')),
        custom_hooks=[dict(type='EMAHook')],
        resume=resume,
        randomness=dict(seed=1),
        experiment_name=f'{folder.name}-{epochs}-{resume}',
    )
    runner.train()
    return runner


def test_a_training_with_everything_is_resumed(tool, tmp_path, monkeypatch):
    """Optimizer, schedulers, averaged weights, the log's history, the best score and the data set's metainfo.

    As torch's plain loading resumes it.
    """
    trained(tmp_path / 'plainly', 2, False)
    shutil.copytree(tmp_path / 'plainly', tmp_path / 'safely')
    (tmp_path / 'safely/last_checkpoint').write_text(str(tmp_path / 'safely/epoch_2.pth'))
    with tool.safe_checkpoints():
        safely = trained(tmp_path / 'safely', 4, True)
    monkeypatch.setenv(tool.ANYTHING, '1')
    plainly = trained(tmp_path / 'plainly', 4, True)
    assert safely.iter == plainly.iter == 8
    for name, value in plainly.model.state_dict().items():
        assert torch.equal(value, safely.model.state_dict()[name]), name
    history = [runner.message_hub.get_scalar('train/loss').data[0].tolist() for runner in (plainly, safely)]
    assert history[0] == history[1] and len(history[0]) == 8


def test_a_torch_that_can_not_be_told_what_is_safe(tool, monkeypatch):
    monkeypatch.delattr(torch.serialization, 'add_safe_globals')
    with pytest.raises(SystemExit, match=r'torch 2\.4 can: install that'), tool.safe_checkpoints():
        pass
    monkeypatch.setenv(tool.ANYTHING, '1')
    with tool.safe_checkpoints():
        pass


def test_the_environment_is_as_before(tool, monkeypatch):
    monkeypatch.delenv(tool.ONLY, raising=False)
    with tool.safe_checkpoints():
        assert os.environ[tool.ONLY] == '1'
    assert tool.ONLY not in os.environ
