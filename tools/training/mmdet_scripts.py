"""Finds and runs the scripts that come with the installed mmdet (tools/train.py, tools/test.py)."""

from __future__ import annotations
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def run(name: str) -> None:
    """Runs mmdet's tools/<name> as the main program, with this process's own arguments."""
    from . import needs_mmdet  # noqa: F401

    package = Path(find_spec('mmdet').origin).parent
    # A wheel carries its scripts in mmdet/.mim/tools; a source checkout has them beside the package.
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    script = next(filter(Path.is_file, candidates), None)
    if script is None:
        sys.exit(f'the installed mmdet has no tools/{name}: looked at {" and ".join(map(str, candidates))}')
    run_script(script)


def run_script(script: Path) -> None:
    """Runs a script as the main program: with safe checkpoints, and its process group left at the end."""
    # Without mmdet, which run() says, there may be no mmengine either.
    from .checkpoints import safe_checkpoints

    with safe_checkpoints(), process_group():
        runpy.run_path(str(script), run_name='__main__')


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes of torchrun where mmengine can't, and leaves at the end whatever group there is.

    mmengine's own start calls torch.cuda.set_device whatever the backend, which a CPU build of torch does not have; it
    leaves a process group that exists alone, so on a machine with no accelerator gloo joins them before.

    A group that nobody leaves is torn down by the exit of the interpreter, in no order, while its threads run: the process
    may abort after its work is done.
    """
    from mmengine.device import get_device
    from torch import distributed

    if distributed.is_torchelastic_launched() and get_device() == 'cpu':
        distributed.init_process_group('gloo')
    try:
        yield
        if distributed.is_initialized():
            # The process that keeps the store of the others must not go first.
            distributed.barrier()
    except BaseException:
        # NCCL would wait for processes that are at work on something else; gloo tells them by closing.
        if distributed.is_initialized() and distributed.get_backend() == 'gloo':
            distributed.destroy_process_group()
        raise
    if distributed.is_initialized():
        distributed.destroy_process_group()
