"""The stubs of the public API: as they are generated, true to the package, and what they say of right and wrong calls."""

import os
import re
import subprocess
import sys

import pytest
from mypy import api

from tools.maintain import stubs

# A wrong call ends with the kind of its error.
CALLS = """
import torch
from focal_plugin import functional, use_backend
from focal_plugin.detectors import FusedDINO
from focal_plugin.functional import mask_focal_loss, sigmoid_focal_loss, varifocal_loss
from focal_plugin.heads import FusedRetinaHead
from focal_plugin.losses import FusedEqualizedFocalLoss, FusedFocalLoss, FusedSoftmaxFocalLoss, FusedVarifocalLoss
from focal_plugin.match_costs import FusedFocalLossCost

x, labels = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)

total: torch.Tensor = varifocal_loss(x, (labels, x[:, 0]), gamma=2, iou_weighted=False)
sigmoid_focal_loss(x, labels, x[:, 0], gamma=[1, 2, 3], alpha=None, reduction='sum', avg_factor=torch.tensor(4))
functional.gaussian_focal_loss(x, x, from_logits=True)
functional.class_balanced_focal_loss(x, labels, samples_per_class=[10, 20, 30])
mask_focal_loss(x, x, gamma=1.5)
FusedFocalLoss(True, 2.0, 0.25, 'mean', 1.0, ignore_index=255, class_weight=[1, 2, 3])
gamma: float | torch.Tensor = FusedFocalLoss().gamma
FusedEqualizedFocalLoss(num_classes=3, gamma=2)
FusedFocalLossCost(alpha=0.25, weight=2.0)
FusedRetinaHead(num_classes=3, in_channels=256)
FusedDINO(chunk=16)
with use_backend('torch'):
    loss: torch.Tensor = FusedVarifocalLoss().forward(x, x)

varifocal_loss(x, x, gama=2)  # call-arg
varifocal_loss(x, x, gamma=[1, 2, 3])  # arg-type
varifocal_loss(x)  # call-arg
sigmoid_focal_loss(x, (labels, x[:, 0]))  # arg-type
sigmoid_focal_loss(x, labels, None, 2.0)  # call-arg
functional.class_balanced_focal_loss(x, labels)  # call-arg
functional.softmax_focal_loss(x, labels, activated=True)  # call-arg
functional.focal_loss(x, labels)  # attr-defined
mask_focal_loss(x, x, reduction=None)  # arg-type
FusedFocalLoss(gama=2)  # call-arg
FusedFocalLoss(gamma='2')  # arg-type
FusedEqualizedFocalLoss()  # call-arg
FusedSoftmaxFocalLoss(iou_weighted=True)  # call-arg
FusedFocalLossCost(gama=2)  # call-arg
FusedDINO(chunk='16')  # arg-type
"""
ERROR = re.compile(r'^[^:]+:(\d+): error: .*\[([\w-]+)\]$', re.MULTILINE)

# The package's own types are compared, without reading torch's, which takes longer; errors in bodies are for mypy to find.
CONFIG = f"""
[mypy]
mypy_path = {stubs.ROOT}
ignore_errors = True
[mypy-torch.*]
follow_imports = skip
[mypy-mmdet.*,mmengine.*,triton.*]
ignore_missing_imports = True
"""
# Modules that have no stub are their own.
ALLOWED = r'focal_plugin\.(detectors|heads|losses|match_costs)\.[a-z]\w*\..*'


def test_the_committed_stubs_are_those_that_the_specs_give():
    assert stubs.stale(stubs.stubs()) == []


@pytest.mark.slow
def test_a_type_checker_finds_the_wrong_calls_and_no_others(tmp_path):
    (tmp_path / 'calls.py').write_text(CALLS)
    options = [f'--config-file={stubs.ROOT / "pyproject.toml"}', f'--cache-dir={stubs.ROOT / ".mypy_cache"}']
    out, failure, _ = api.run([*options, '--no-pretty', str(tmp_path / 'calls.py')])
    lines = CALLS.splitlines()
    found = {lines[int(number) - 1]: kind for number, kind in ERROR.findall(out)}
    assert (found, failure) == ({line: line.rpartition('  # ')[2] for line in lines if '  # ' in line}, ''), out


@pytest.mark.slow
def test_the_stubs_agree_with_the_package_at_run_time(tmp_path):
    (tmp_path / 'mypy.ini').write_text(CONFIG)
    (tmp_path / 'allowed').write_text(ALLOWED)
    modules = [f'focal_plugin.{name}' for name in stubs.MODULES]
    options = ['--concise', f'--mypy-config-file={tmp_path / "mypy.ini"}', f'--allowlist={tmp_path / "allowed"}']
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mypy.stubtest', *options, *modules],
        env=os.environ | {'PYTHONPATH': str(stubs.ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
