"""The host side of the GPU path, on a device that is not there: what waits for it, and what mixes it with the CPU."""

import pytest
import torch

from focal_plugin import functional
from tests.oracle.inputs import labels, predictions

ROWS, CLASSES = 30, 7


@pytest.fixture
def waits():
    from tests.gpu import device

    return device.waits


ON_CPU = torch.arange(12.0).view(3, 4)
NOTED = {
    'item': lambda t: t[0, 1].item(),
    'bool': lambda t: bool(t[0, 0]),
    'tolist': lambda t: t.tolist(),
    'cpu': lambda t: t.cpu(),
    'a copy into a CPU tensor': lambda t: torch.empty(3, 4).copy_(t),
    'from the CPU': lambda t: ON_CPU.to(t.device),
    'from memory that is not pinned, without blocking': lambda t: ON_CPU.to(t.device, non_blocking=True),
    'a tensor of numbers': lambda t: torch.tensor([1.0, 2.0], device=t.device),
    'nonzero': lambda t: t.nonzero(),
    'equal': lambda t: torch.equal(t, t),
    'a mask as an index': lambda t: t[t > 3],
    'a mask as an index to write to': lambda t: t.clone().index_put_((t > 3,), t.new_ones(())),
    'any, asked for': lambda t: 1 if (t > 3).any() else 0,
    'unique': lambda t: t.unique(),
}
FREE = {
    'arithmetic': lambda t: (t.t() @ t).sum().sqrt(),
    'views': lambda t: t[1:, ::2].unsqueeze(0).expand(2, -1, -1).permute(2, 0, 1),
    'factories': lambda t: t.new_full((3,), 2.0) + torch.zeros(3, device=t.device),
    'a number beside it': lambda t: t + 1.5,
    'where': lambda t: torch.where(t > 3, t, 0.0),
    'another dtype': lambda t: t.to(torch.bfloat16).float(),
    'an index of its own': lambda t: t[torch.arange(2, device=t.device)],
    'a gradient': lambda t: torch.autograd.grad(t.requires_grad_().sigmoid().sum(), t)[0],
}


@pytest.mark.parametrize('wait', NOTED.values(), ids=NOTED)
def test_every_wait_is_noted(stand_in, waits, wait):
    tensor = ON_CPU.to(stand_in)
    with waits() as noted:
        wait(tensor)
    assert noted and 'test_device.py' in noted[0]


@pytest.mark.parametrize('operation', FREE.values(), ids=FREE)
def test_what_does_not_wait_gives_what_a_cpu_does(stand_in, waits, operation):
    tensor = ON_CPU.to(stand_in)
    with waits() as noted:
        result = operation(tensor)
    assert noted == [] and result.device.type == stand_in and type(result) is torch.Tensor
    assert torch.equal(result.detach().cpu(), operation(ON_CPU.clone()).detach())


def test_views_share_memory(stand_in):
    whole = ON_CPU.to(stand_in)
    part = whole[1:, 1:]
    assert part.data_ptr() == whole.data_ptr() + 5 * 4 and part.stride() == (4, 1) and part.storage_offset() == 5
    part.zero_()
    assert whole.cpu().sum() == ON_CPU[0].sum() + ON_CPU[1:, 0].sum()


MIXES = {
    'arithmetic': lambda ours, cpu: ours + cpu,
    'cat': lambda ours, cpu: torch.cat([ours, cpu]),
    'where': lambda ours, cpu: torch.where(ours > 1, ours, cpu),
    'index': lambda ours, cpu: ours[cpu.long()],
    'a product': lambda ours, cpu: ours @ cpu.t(),
}


@pytest.mark.parametrize('mix', MIXES.values(), ids=MIXES)
def test_operators_take_no_two_devices(stand_in, mix):
    with pytest.raises(RuntimeError, match='same device'):
        mix(ON_CPU.to(stand_in), ON_CPU)


def test_a_launch_takes_no_pointer_of_the_cpu(stand_in):
    from focal_plugin.kernels.triton import sums

    with pytest.raises(ValueError, match='cpu tensor'):
        sums.add(torch.zeros(4), None, torch.zeros((), device=stand_in))


@pytest.mark.parametrize('name', ('target', 'weight'))
def test_losses_refuse_what_is_on_the_cpu(stand_in, name):
    given = dict(target=labels(ROWS, classes=CLASSES), weight=torch.ones(ROWS))
    given = {key: value if key == name else value.to(stand_in) for key, value in given.items()}
    with pytest.raises(ValueError, match=rf'{name} is on cpu, pred on {stand_in}:0: write {name}.to\(pred.device\)'):
        functional.sigmoid_focal_loss(predictions(ROWS, CLASSES).to(stand_in), **given)
