"""A Triton that computes nothing, or something else, is refused with a message; each device is asked once."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import focal_plugin
from focal_plugin import backend, functional
from focal_plugin.ops import library
from tests.conftest import one_graph
from tests.kernels import spoiled_machines
from tests.kernels.problems import focal_problem

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not backend.INTERPRETING, reason='runs the kernels on the CPU'),
]

CPU = torch.device('cpu')


@pytest.fixture
def selftest(monkeypatch):
    """The module, with no device tested yet."""
    from focal_plugin.kernels.triton import selftest

    monkeypatch.setattr(selftest, '_verdicts', {})
    return selftest


@pytest.fixture
def instead_of_launching(selftest, monkeypatch):
    """Puts a function of (launch, *its arguments) where the self-test launches kernels."""
    launch = selftest.elementwise.launch

    def put(replacement):
        stand_in = SimpleNamespace(launch=lambda *args: replacement(launch, *args))
        monkeypatch.setattr(selftest, 'elementwise', stand_in)

    return put


@pytest.fixture
def tested(selftest, monkeypatch) -> list[torch.device]:
    """The devices that are tested, in whose place nothing runs."""
    devices = []
    monkeypatch.setattr(selftest, '_verdict', lambda device, in_one_pass: devices.append(device))
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(torch.cuda, 'get_sync_debug_mode', lambda: 0)
    return devices


def logits_on(device: str) -> SimpleNamespace:
    """What the self-test asks of logits, on a device that is not there."""
    return SimpleNamespace(device=torch.device(device), is_meta=False, is_cuda=device.startswith('cuda'))


def loss() -> torch.Tensor:
    with focal_plugin.use_backend('triton'):
        return functional.sigmoid_focal_loss(torch.zeros(2, 80), torch.tensor([3, 80]), reduction='sum')


def refusal() -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        loss()
    return raised.value


def test_outputs_left_unwritten(instead_of_launching):
    """As the interpreter of Triton 3.1 leaves them: refused at every call, and tested at the first."""
    import triton

    launched = []
    instead_of_launching(lambda launch, *args: launched.append(args))
    (message,) = {str(refusal()) for _ in range(3)}
    assert message.startswith(f'Triton {triton.__version__} fails the self-test on cpu')
    assert 'the loss is NaN or was left unwritten' in message
    assert "with focal_plugin.use_backend('torch')" in message and 'FOCAL_PLUGIN_BACKEND=torch' in message
    assert len(launched) == 2  # a forward and a backward


def test_a_gradient_left_unwritten(instead_of_launching):
    instead_of_launching(
        lambda launch, problem, layout, out, *others: out is None and launch(problem, layout, None, *others)
    )
    assert 'the gradient is NaN or was left unwritten' in str(refusal())


def test_wrong_results(instead_of_launching):
    instead_of_launching(lambda launch, problem, *args: launch(problem._replace(scale=1.01), *args))
    assert 'the loss is off by 1.0e-02 of its value' in str(refusal())


def test_kernels_that_can_not_be_built(instead_of_launching):
    def fail(launch, *args):
        raise RuntimeError('all the lines of a kernel') from AttributeError('no such instruction')

    instead_of_launching(fail)
    first, second = refusal(), refusal()
    assert str(first) == str(second) and 'AttributeError: no such instruction. Install' in str(first)
    assert str(second.__cause__) == 'all the lines of a kernel'


def test_every_loss_is_refused(instead_of_launching):
    instead_of_launching(lambda launch, *args: None)
    with focal_plugin.use_backend('triton'), pytest.raises(RuntimeError, match='fails the self-test'):
        functional.softmax_focal_loss(torch.zeros(2, 80), torch.tensor([3, 79]))


def test_the_torch_backend_serves_as_the_message_says(instead_of_launching):
    instead_of_launching(lambda launch, *args: None)
    refusal()
    with focal_plugin.use_backend('torch'):
        value = functional.sigmoid_focal_loss(torch.zeros(2, 80), torch.tensor([3, 80]))
    assert value.isfinite()


@pytest.fixture
def building_a_launcher(instead_of_launching, monkeypatch, tmp_path):
    """The self-test builds what a GPU's launch would, with nothing found in a cache."""
    from triton.runtime import build

    if hasattr(build, '_find_compiler'):
        monkeypatch.setattr(build, '_find_compiler', build._find_compiler.__wrapped__)
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path / 'cache'))

    def launch(launch, *arguments):
        spoiled_machines.compile_module()
        launch(*arguments)

    instead_of_launching(launch)


@pytest.mark.skipif(shutil.which('gcc') is None, reason='needs a C compiler, to miss it')
@pytest.mark.parametrize('spoil, message', spoiled_machines.MACHINES.values(), ids=spoiled_machines.MACHINES)
def test_what_a_machine_lacks_is_not_blamed_on_triton(building_a_launcher, monkeypatch, tmp_path, spoil, message):
    spoil(monkeypatch, tmp_path)
    said = str(refusal())
    assert re.search(message, said) and 'another version' not in said, said
    assert "or choose the torch backend: with focal_plugin.use_backend('torch')" in said


@pytest.mark.skipif(shutil.which('gcc') is None, reason='needs a C compiler')
def test_a_machine_that_lacks_nothing(building_a_launcher):
    assert loss().isfinite()


@pytest.mark.parametrize(
    'error',
    [torch.cuda.OutOfMemoryError('CUDA out of memory'), RuntimeError('Triton Error [CUDA]: out of memory')],
    ids=["PyTorch's", "Triton's"],
)
def test_memory_that_ran_out_is_no_verdict(selftest, instead_of_launching, monkeypatch, error):
    def run_out(launch, *args):
        raise error

    monkeypatch.delattr(torch, 'OutOfMemoryError', raising=False)  # as in torch 2.4
    instead_of_launching(run_out)
    with pytest.raises(type(error), match='out of memory'):
        loss()
    instead_of_launching(lambda launch, *args: launch(*args))
    assert loss().isfinite()
    assert selftest._verdicts == {(CPU, False): None}


def test_passes_in_inference_mode(selftest):
    with torch.inference_mode():
        assert loss().isfinite()
    assert selftest._verdicts == {(CPU, False): None}


def test_passes_inside_a_checkpoint(selftest):
    leaf = torch.zeros(2, 80, requires_grad=True)
    with focal_plugin.use_backend('triton'):
        value = checkpoint(lambda x: functional.sigmoid_focal_loss(x, torch.tensor([3, 80])), leaf, use_reentrant=False)
        value.backward()
    assert selftest._verdicts == {(CPU, False): None} and leaf.grad.abs().max() > 0


def test_once_for_each_device(selftest, tested):
    for device in ('cuda:0', 'cuda:0', 'cuda:1', 'xpu:0', 'cuda:1', 'cuda:0'):
        selftest.require(logits_on(device))
    assert tested == [torch.device(device) for device in ('cuda:0', 'cuda:1', 'xpu:0')]


def test_forward_and_backward_share_a_test(tested):
    with focal_plugin.use_backend('triton'):
        pred = torch.zeros(2, 80, requires_grad=True)
        functional.sigmoid_focal_loss(pred, torch.tensor([3, 80])).backward()
    assert tested == [CPU]


def test_one_pass_has_a_test_of_its_own(selftest, instead_of_launching):
    """It is compiled where a loss first needs it: here it alone does nothing."""

    def launch_two_passes(launch, problem, like, out, upstream, *partial):
        if out is None or upstream is not None:
            launch(problem, like, out, upstream, *partial)

    instead_of_launching(launch_two_passes)
    with focal_plugin.use_backend('triton'):
        problem = focal_problem(torch.zeros(2, 80), torch.tensor([3, 80]), 'triton')
        assert library.forward(problem).isfinite()
        with pytest.raises(RuntimeError, match='the loss is NaN or was left unwritten'):
            library.forward_and_backward(problem)
    assert list(selftest._verdicts) == [(CPU, False), (CPU, True)]


@pytest.mark.parametrize(
    ('function', 'busy', 'free'), [('is_current_stream_capturing', True, False), ('get_sync_debug_mode', 2, 1)]
)
def test_not_while_nothing_may_wait(selftest, tested, monkeypatch, function, busy, free):
    """A CUDA graph is captured, or waiting is an error; but later."""
    monkeypatch.setattr(torch.cuda, function, lambda: busy)
    selftest.require(logits_on('cuda:0'))
    assert tested == []
    monkeypatch.setattr(torch.cuda, function, lambda: free)
    selftest.require(logits_on('cuda:0'))
    assert tested == [torch.device('cuda:0')]


def test_not_for_tensors_without_values(selftest, tested):
    selftest.require(torch.empty(1, device='meta'))
    with FakeTensorMode():
        assert loss().shape == ()
    assert tested == []


@one_graph
def test_not_while_tracing(tested):
    """The compiled function tests it when it runs."""
    traced = []

    def backend_of_compiler(graph, inputs):
        traced.append(list(tested))
        return graph

    compiled = torch.compile(loss_of, backend=backend_of_compiler, fullgraph=True)
    with focal_plugin.use_backend('triton'):
        compiled(torch.zeros(2, 80), torch.tensor([3, 80]))
    assert traced == [[]] and tested == [CPU]


def loss_of(pred, target):
    return functional.sigmoid_focal_loss(pred, target)
