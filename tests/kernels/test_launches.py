"""How many kernels a loss launches, on which GPU, and that a CUDA graph can record them."""

import contextlib
import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from focal_plugin import backend, functional
from focal_plugin.kernels import checks
from focal_plugin.losses import FusedFocalLoss
from focal_plugin.math import SPECS
from focal_plugin.ops import library
from tests.kernels.problems import focal_problem
from tests.variants import VARIANTS

KERNELS = {'tiled': 'tiles', 'flat': 'flat', 'rowwise': 'rowwise', 'sum': 'sums'}  # by the module of each
FREE = {'_unsafe_view', 'detach', 'empty', 'empty_like', 'new_empty'}
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available() or backend.INTERPRETING, reason='needs a GPU'),
]


class Operators(TorchDispatchMode):
    """The names of the operators that run, without those that launch nothing on a GPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        is_empty = isinstance(out, torch.Tensor) and out.numel() == 0
        if not (func.is_view or is_empty or func.overloadpacket.__name__ in FREE):
            self.names.append(func.overloadpacket.__name__)
        return out


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that are launched, in whose place nothing runs."""
    from focal_plugin.kernels.triton import launches, selftest

    selftest.require(torch.empty(0))  # the first launches of a process
    names = []

    class Kernel:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda *args, **kwargs: names.append(self.name)

    monkeypatch.setattr(launches, '_kept', {})
    for name, module in KERNELS.items():
        monkeypatch.setattr(f'focal_plugin.kernels.triton.{module}.{name}_kernel', Kernel(name))
    monkeypatch.setattr(library, '_is_direct', lambda problem: True)  # else operators hide in ours
    return names


@pytest.mark.triton
@pytest.mark.skipif(not backend.INTERPRETING, reason='the GPU test below counts for real')
@pytest.mark.parametrize('classes', (80, 365))
@pytest.mark.parametrize('name', SPECS)
def test_two_kernels_forward_and_one_backward(launched, monkeypatch, name, classes):
    """And no operator of PyTorch beside them, but for class-balanced weights, which are looked up for each row."""
    monkeypatch.setattr(checks, 'may_look', lambda _: False)  # as on a GPU
    spec = SPECS[name]
    pred = torch.zeros(50, classes, requires_grad=True)
    if spec.form == 'dense':
        target = torch.zeros(50, classes)
    else:
        target = torch.zeros(50, dtype=torch.int64)
        target = (target, torch.ones(50)) if spec.form == 'scored' else target
    parameters = VARIANTS[name].required(classes) | VARIANTS[name].of_logits  # probabilities are checked, on a CPU
    loss_of, weight, avg_factor, upstream = (
        getattr(functional, spec.function),
        torch.ones(50),
        torch.tensor(3.0),
        pred.new_ones(()),
    )
    with backend.use_backend('triton'), Operators() as forward:
        loss = loss_of(pred, target, weight, avg_factor=avg_factor, **parameters)
    kernel = launched[0]
    assert launched == [kernel, 'sum'] and kernel in ('tiled', 'flat', 'rowwise')
    assert forward.names == [] or spec.prepare
    with Operators() as backward:
        torch.autograd.grad(loss, pred, upstream)
    assert launched == [kernel, 'sum', launched[2]] and launched[2] in (kernel, 'flat')
    assert backward.names == []


@pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='Triton is not installed')
@pytest.mark.parametrize('classes', (8, 24, 80, 1200, 4096))
@pytest.mark.parametrize('rows', (1, 2, 3, 40))
def test_a_thread_has_two_logits_at_least(rows, classes):
    """Of a sum over labels two neighbours share a reciprocal; in the place of one that is missing any number may be."""
    from focal_plugin.kernels.layout import layout_of

    layout = layout_of(focal_problem(torch.empty(rows, classes), torch.empty(rows, dtype=torch.int64)))
    assert layout.block_rows * layout.block_classes >= 2 * 32 * layout.warps


@pytest.mark.parametrize('is_current', (False, True), ids=('another is', 'it is already'))
@pytest.mark.parametrize('device', ('cuda:1', 'xpu:0'))
def test_the_gpu_of_the_logits_is_the_current_one(monkeypatch, device, is_current):
    """For the self-test too: Triton launches on the current one. Where it is, nothing is changed."""
    current, seen = ['another'], []

    @contextlib.contextmanager
    def make_current(chosen):
        current.append(str(chosen))
        yield
        current.pop()

    note = lambda *args: seen.append(current[-1])  # noqa: E731
    gpus = getattr(torch, torch.device(device).type)
    monkeypatch.setattr(gpus, 'device', make_current)
    monkeypatch.setattr(gpus, 'current_device', lambda: torch.device(device).index + is_current - 1)
    monkeypatch.setattr(library, '_kernels', lambda backend, variant: SimpleNamespace(backward=note))
    monkeypatch.setattr('focal_plugin.kernels.triton.selftest.require', note)
    problem = SimpleNamespace(pred=SimpleNamespace(device=torch.device(device)), backend='triton', variant='focal')
    library._run('backward', problem, problem, 'upstream')
    assert seen == ['another' if is_current else device] * 2 and current == ['another']


def inputs(classes: int, device: str = 'cuda'):
    """Logits, labels, weights and avg_factor of a GPU."""
    pred = torch.randn(3000, classes, device=device, requires_grad=True)
    labels = torch.randint(0, classes + 1, (3000,), device=device)
    return pred, labels, torch.rand(3000, device=device), torch.tensor(7.0, device=device)


def step(pred, labels, weight, avg_factor):
    loss = FusedFocalLoss()(pred, labels, weight, avg_factor=avg_factor)
    (grad,) = torch.autograd.grad(loss, pred)
    return loss, grad


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2 or backend.INTERPRETING, reason='needs two GPUs')
def test_a_second_gpu():
    tensors = inputs(80, 'cuda:1')
    others = [tensor.detach().to('cuda:0').requires_grad_(tensor.requires_grad) for tensor in tensors]
    torch.testing.assert_close(step(*tensors), step(*others), check_device=False)


@pytest.mark.parametrize('classes', [pytest.param(classes, marks=on_gpu) for classes in (80, 3, 365)])
def test_kernels_on_a_gpu(classes, monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', False)  # a launch for each output
    tensors = inputs(classes)
    step(*tensors)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step(*tensors)
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    # Triton 3.1 and 3.2 add a suffix.
    ours = [name for name in names if name.startswith(tuple(f'{kernel}_kernel' for kernel in KERNELS))]
    assert len(ours) == 3 and len(names) <= 4, names  # autograd fills the upstream 1


@pytest.mark.parametrize('classes', [pytest.param(classes, marks=on_gpu) for classes in (80, 3, 365)])
def test_a_cuda_graph_of_forward_and_backward(classes):
    """Recorded once, it gives the loss and gradient of whatever its inputs hold later."""
    tensors = inputs(classes)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step(*tensors)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grad = step(*tensors)
    with torch.no_grad():
        for tensor, other in zip(tensors, inputs(classes), strict=True):
            tensor.copy_(other)
    graph.replay()
    expected_loss, expected_grad = step(*tensors)
    assert torch.equal(loss, expected_loss) and torch.equal(grad, expected_grad)
