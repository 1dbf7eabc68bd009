"""Trains one config of compare_losses.py, in a process of its own."""

import fcntl
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed

from .checkpoints import safe_checkpoints
from .memory import reset_peak, resident


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """Trains the same however often it is interrupted: batch i is drawn, and trained on, from the seed plus i.

    Args:
        seed (int): The seed.
        max_iters (int, optional): Where training ends; the config's epochs by default.
        val_every (int, optional): Iterations between validations, in place of val_interval epochs.
        max_epochs, val_interval, val_begin, dynamic_intervals: As in mmengine's loop.
    """

    def __init__(
        self, runner, dataloader, seed, max_iters=None, val_every=None, max_epochs=1, val_interval=1, **kwargs
    ) -> None:
        never = sys.maxsize  # but at the end, as always
        super().__init__(runner, dataloader, max_epochs, val_interval=never if val_every else val_interval, **kwargs)
        self.seed, self.val_every = seed, val_every
        self._max_iters = max_iters or self._max_iters
        self._max_epochs = math.ceil(self._max_iters / len(self.dataloader))
        self.val_begin = min(self.val_begin, self._max_epochs)

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first = self._epoch * len(self.dataloader)
        for index, batch in enumerate(self.batches(first)):
            # A resumed epoch passes over the batches that it had.
            if first + index >= self._iter:
                self.run_iter(index, batch)
            if self._iter >= self._max_iters:
                break
            is_due = self.val_every and first + index + 1 == self._iter and self._iter % self.val_every == 0
            if is_due and self.runner.val_loop is not None:
                self.runner.val_loop.run()
                self.runner.model.train()
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def batches(self, first: int) -> Iterator[dict]:
        self.dataloader.worker_init_fn = partial(seed_worker, seed=self.seed + first)
        seed_all(self.seed + first)
        iterator = iter(self.dataloader)
        for number in range(first, self._max_iters):
            seed_all(self.seed + number)
            try:
                yield next(iterator)
            except StopIteration:
                return


def seed_worker(worker: int, seed: int) -> None:
    seed_all(seed + 1_000_003 * (worker + 1))


def seed_all(seed: int) -> None:
    set_random_seed(seed % 2**32)  # of NumPy


class Recorder(Hook):
    """Writes a line per few iterations (mean losses and time, the peak of memory), and each validation's metrics."""

    priority = 'VERY_LOW'

    def __init__(self, folder: Path, tell: Callable[[dict], None], every: int) -> None:
        self.file = (folder / 'records.jsonl').open('a')
        # Ends the half line that a killed process may have left.
        self.file.write('\n')
        self.tell, self.every = tell, every
        self.steps: list[dict] = []
        self.metrics: dict = {}

    def before_train(self, runner) -> None:
        self.tell(dict(start=runner.iter, total=runner.max_iters))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.begun = now()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.steps.append({'time': now() - self.begun, **outputs})
        done = runner.iter + 1
        if done % self.every == 0 or done == runner.max_iters:
            means = {name: sum(float(step[name]) for step in self.steps) / len(self.steps) for name in self.steps[0]}
            self.write(iter=done, peak=peak(), **means)
            self.steps.clear()
        self.tell(dict(done=done))

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = {name: float(value) for name, value in metrics.items()}
        self.write(iter=runner.iter, metrics=self.metrics)

    def write(self, **row) -> None:
        self.file.write(json.dumps(row) + '\n')
        self.file.flush()


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak() -> int:
    """Bytes: of tensors on the GPU, else of the whole process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident('VmHWM')


def continue_or_begin(config: Config, has_begun: bool) -> None:
    """Has a training go on from its own checkpoint, or begin with the weights of load_from alone.

    Of a config with both load_from and resume mmengine would take over that training's iterations and schedule.
    """
    if has_begun:
        config.load_from = None
    elif config.get('load_from'):
        config.resume = False


def train_one(folder: Path, progress: Connection) -> None:
    """Trains the config.py of a folder, which gets records.jsonl, checkpoints, log.txt and, at the end, result.json.

    Args:
        folder: of this training alone.
        progress: is told how far it is; a reader that is gone ends the training, so that none outlives its comparison.
    """
    with (folder / 'log.txt').open('a') as log, (folder / 'lock').open('w') as lock:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        # One that lost its comparison may be in its last iteration.
        fcntl.flock(lock, fcntl.LOCK_EX)
        last = folder / 'last_checkpoint'
        if last.exists() and not Path(last.read_text()).is_file():
            last.unlink()
        config = Config.fromfile(folder / 'config.py')
        config.work_dir = str(folder)
        continue_or_begin(config, last.exists())
        # Under another name, since mmengine writes what it runs into the folder.
        config = Config(config.to_dict(), config.text, folder / 'run.py')
        runner = Runner.from_cfg(config)
        recorder = Recorder(folder, progress.send, config.default_hooks.logger.interval)
        runner.register_hook(recorder)
        with safe_checkpoints():
            runner.train()
        temporary = folder / 'result.tmp'
        temporary.write_text(json.dumps(dict(iters=runner.iter, metrics=recorder.metrics)))
        temporary.replace(folder / 'result.json')
