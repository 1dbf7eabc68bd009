"""Finds and runs the scripts that come with the installed mmdet (tools/train.py, tools/test.py)."""

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def run(name: str) -> None:
    """Runs mmdet's tools/<name> as the main program, with this process's own arguments."""
    spec = find_spec('mmdet')
    if spec is None:
        sys.exit('mmdet is not installed in this Python: run `bash tools/setup_env.sh`, then use .venv/bin/python')
    package = Path(spec.origin).parent
    # A wheel carries its scripts in mmdet/.mim/tools; a source checkout has them beside the package.
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    script = next(filter(Path.is_file, candidates), None)
    if script is None:
        sys.exit(f'the installed mmdet has no tools/{name}: looked at {" and ".join(map(str, candidates))}')
    if 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ:
        # mmengine keeps objects of its own (the log's history) in a checkpoint, which torch from 2.6 on refuses.
        # A checkpoint can therefore run code, as with every mmdet: load only those that you trust.
        os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    join_without_gpu()
    runpy.run_path(str(script), run_name='__main__')


def join_without_gpu() -> None:
    """Under torchrun on a machine with no accelerator, joins the processes through gloo.

    mmengine's own start calls torch.cuda.set_device whatever the backend, which a CPU build of torch does not have; it
    leaves a process group that exists alone.
    """
    import torch.distributed
    from mmengine.device import get_device

    if torch.distributed.is_torchelastic_launched() and get_device() == 'cpu':
        torch.distributed.init_process_group('gloo')
