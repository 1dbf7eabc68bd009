"""Trains one config with several classification losses, from the same seed on the same batches, and compares them.

Leaves table.md, table.csv and curves.png in the work dir, and each training in a folder of its own. The training loss is
the mean of the last tenth; the time is the median of forward, backward and the optimizer's step; the memory is that of
tensors on a GPU, else of the whole process. Interrupted and started again with the same command, it goes on where it was,
with the same result.

Exit status: 0 done, 1 a loss does not fit the config or a training failed, 2 wrong usage.
"""

import argparse
import csv
import difflib
import fcntl
import json
import logging
import math
import multiprocessing
import shutil
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction
from tqdm import tqdm

from focal_plugin.check_swap.report import check
from focal_plugin.check_swap.request import Loss, UsageError, parse_loss, read_config, swapped, written
from focal_plugin.check_swap.sites import type_name

from .comparison import chosen_metrics, draw, folder_of, markdown, row_of
from .train_one import train_one

TRAINING = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')


def training_config(config: Config, loss: Loss, only: str, iters: int | None, save_every: int | None) -> Config:
    """The config with the loss, ready to be interrupted: checkpoints with everything, a loop that can go on."""
    config = swapped(config, loss, only)
    randomness = config.get('randomness') or {}
    seed = randomness.get('seed') or 0
    config.randomness = dict(randomness, seed=seed)
    config.resume, config.launcher = True, 'none'
    old = config.train_cfg
    loop = dict(type='ResumableTrainLoop', seed=seed, max_iters=iters)
    if type_name(old.get('type', '')) == 'IterBasedTrainLoop' or old.get('by_epoch') is False:
        loop.update(max_iters=iters or old.max_iters, val_every=old.get('val_interval', 1000))
    else:
        loop.update(
            {key: old[key] for key in ('max_epochs', 'val_begin', 'val_interval', 'dynamic_intervals') if key in old}
        )
    config.train_cfg = ConfigDict(loop)
    # Workers that live on would draw other numbers after an interruption.
    config.train_dataloader.persistent_workers = False
    # A record stands for this many iterations; checkpoints fall on records.
    every = max(1, (loop['max_iters'] or 2000) // 200)
    save_every = every * math.ceil((save_every or 10 * every) / every)
    hooks = config.setdefault('default_hooks', {})
    hooks['logger'] = dict(type='LoggerHook', interval=every)
    # Two are kept: mmengine removes the older one before it writes the next.
    hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=False, interval=save_every, max_keep_ckpts=2)
    return Config(written(config))


def prepared(folder: Path, text: str, restart: bool) -> bool:
    """Writes the config, or finds the same one; UsageError where the folder has trained another."""
    file = folder / 'config.py'
    if file.exists() and file.read_text() != text:
        if not restart:
            lines = difflib.unified_diff(
                file.read_text().splitlines(), text.splitlines(), 'was', 'is', lineterm='', n=0
            )
            raise UsageError(
                f'{folder} was trained with another config or arguments:\n' + '\n'.join(list(lines)[:20]) + '\n'
                'Give another --work-dir, or --restart to throw that training away'
            )
        shutil.rmtree(folder)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / 'config.tmp'
        temporary.write_text(text)
        temporary.replace(file)
    return (folder / 'result.json').exists()


def train(loss: Loss, folder: Path) -> bool:
    """Trains, or goes on, in a process of its own; whether it came to its end."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=train_one, args=(folder, sender))
    child.start()
    sender.close()
    try:
        with tqdm(desc=loss.text, unit='it', disable=None) as bar, suppress(EOFError):
            while True:
                row = receiver.recv()
                if 'total' in row:
                    bar.total = row['total']
                    tqdm.write(f'{loss.text}: {row["start"]} of {row["total"]} iterations done')
                    sys.stdout.flush()
                bar.update(row.get('done', row.get('start', 0)) - bar.n)
        child.join()
        return child.exitcode == 0
    finally:
        child.terminate()
        child.join(30)
        child.kill()
        child.join()


def fits(config: Config, losses: list[Loss], only: str) -> bool:
    """Whether every loss fits the config; prints what does not, and what to know."""
    good = True
    for loss in losses:
        report = check(config, loss, only)
        for sentence in report.notes:
            print(f'{loss.text}: {sentence}')
        for sentence in report.refusals:
            print(f'{loss.text} does not fit: {sentence}', file=sys.stderr)
        good = good and not report.refusals
    return good


def lock(work_dir: Path):
    work_dir.mkdir(parents=True, exist_ok=True)
    file = (work_dir / 'lock').open('w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f'{work_dir}: another comparison is at work there') from None
    return file


def compare(config: Config, losses: list[Loss], args) -> int:
    work_dir = args.work_dir
    texts = {loss: training_config(config, loss, args.only, args.iters, args.save_every).pretty_text for loss in losses}
    left = [loss for loss, text in texts.items() if not prepared(folder_of(work_dir, loss), text, args.restart)]
    if not fits(config, left, args.only):
        return 1
    failed = []
    for loss in left:
        if not train(loss, folder_of(work_dir, loss)):
            failed.append(loss)
            log = folder_of(work_dir, loss) / 'log.txt'
            end = '\n'.join(log.read_text().splitlines()[-8:])
            print(f'{loss.text}: training failed, see {log}\n{end}', file=sys.stderr)
    done = [loss for loss in losses if loss not in failed]
    if done:
        results = [json.loads((folder_of(work_dir, loss) / 'result.json').read_text()) for loss in done]
        metrics = chosen_metrics(results, args.metric)
        rows = [row_of(loss, work_dir, metrics) for loss in done]
        (work_dir / 'table.md').write_text(markdown(rows))
        with (work_dir / 'table.csv').open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
        draw(done, work_dir, metrics, args.config.stem).savefig(work_dir / 'curves.png', dpi=150)
        print(f'\n{markdown(rows)}\n{work_dir}/table.md, table.csv, curves.png')
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path, help='a detector')
    parser.add_argument(
        '--losses', nargs='+', required=True, metavar='NAME', help='registry classes; NAME,key=value,... with arguments'
    )
    parser.add_argument('--only', default='', metavar='PATH', help='swap only here, as in roi_head.bbox_head')
    parser.add_argument('--iters', type=int, help="iterations to train; default: the config's epochs")
    parser.add_argument('--save-every', type=int, help='iterations between checkpoints; default: a twentieth or less')
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/compare_CONFIG')
    parser.add_argument('--metric', nargs='+', help="the evaluation's names; default: coco/bbox_mAP, or its first")
    parser.add_argument('--restart', action='store_true', help='throw away trainings of another config or arguments')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='changes of the config'
    )
    args = parser.parse_args()
    args.work_dir = args.work_dir or Path('work_dirs') / f'compare_{args.config.stem}'
    if min(args.iters or 1, args.save_every or 1) < 1 or args.iters == 0:
        parser.error('--iters and --save-every: at least 1')
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        config = read_config(args.config, args.cfg_options, TRAINING)
        losses = [parse_loss(text) for text in dict.fromkeys(args.losses)]
        with lock(args.work_dir):
            return compare(config, losses, args)
    except UsageError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print('\nstopped; the same command goes on from here', file=sys.stderr)
        return 130
