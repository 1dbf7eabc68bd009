"""The operators under PyTorch's tools: opcheck, torch.compile, TorchScript, vectors of saved state."""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import focal_plugin
from focal_plugin import functional
from focal_plugin.kernels.problem import EPS
from focal_plugin.math import SPECS
from focal_plugin.ops import library
from tests.conftest import one_graph
from tests.kernels.problems import focal_problem

N, C = 20, 7


def inputs(device='cpu'):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(N, C, generator=generator)
    target = torch.randint(0, C + 1, (N,), generator=generator)
    weight = torch.rand(N, generator=generator)
    return pred.to(device), target.to(device), weight.to(device)


@pytest.mark.sampled(interpreted=2)
@pytest.mark.parametrize('output', ('sum', 'row', 'element'))
@pytest.mark.parametrize('dense', (True, False), ids=('dense', 'labels'))
def test_opcheck(any_backend, device, output, dense):
    if any_backend == 'torch':
        pytest.skip('plain PyTorch operations need no operator of their own')
    pred, target, weight = inputs(device)
    if dense:
        target = torch.rand_like(pred)
    avg_factor = torch.tensor([3.0], device=device) if output == 'sum' else None
    problem = (
        *(pred, target, None, weight[:, None].expand(N, C), None, avg_factor, None),
        *('focal', [2.0, 0.25, 0.75], False, None, 0.5, output, any_backend),
    )
    torch.library.opcheck(library.loss_forward, problem)
    upstream = torch.rand({'sum': (1,), 'row': (N,), 'element': (N, C)}[output], device=device)
    for gathers in (False, True):
        torch.library.opcheck(library.loss_backward, (upstream, gathers, *problem))


LAYOUTS = {
    'four dimensions of rows that join': ((2, 3, 4, 5, 7), (0, 1, 2, 3, 4)),
    'four that do not': ((2, 3, 4, 5, 7), (1, 3, 0, 2, 4)),
    'four that do not, classes apart': ((2, 3, 4, 5, 7), (4, 2, 0, 3, 1)),
    'five that do not': ((2, 2, 3, 2, 3, 5), (3, 1, 4, 0, 2, 5)),
}


@pytest.mark.sampled(interpreted=7)
@pytest.mark.parametrize('shape, order', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    'name, output',
    (('focal', 'sum'), ('focal', 'row'), ('focal', 'element'), ('softmax_focal', 'sum'), ('softmax_focal', 'row')),
)
def test_results_lie_as_those_of_the_fakes(any_backend, device, name, output, shape, order):
    """Inductor makes code for the fakes' strides."""
    if any_backend == 'torch':
        pytest.skip('plain PyTorch operations need no operator of their own')
    pred = torch.randn(shape, device=device).permute(order)
    target = torch.randint(0, pred.size(-1), pred.shape[:-1], device=device)
    problem = (pred, target, *[None] * 5, name, [2.0, 0.25, 0.75], False, None, 0.5, output, any_backend)
    upstream = torch.rand({'sum': (), 'row': pred.shape[:-1], 'element': pred.shape}[output], device=device)
    for operator, arguments in ((library.loss_forward, problem), (library.loss_backward, (upstream, False, *problem))):
        torch.library.opcheck(operator, arguments, test_utils=('test_schema', 'test_faketensor'))


@pytest.mark.sampled(2)
@one_graph
@pytest.mark.skipif(focal_plugin.backend.INTERPRETING, reason='the compiler would trace through the interpreter')
@pytest.mark.parametrize('avg_factor', (None, 3.0, torch.tensor([3.0])), ids=('none', 'number', 'tensor'))
def test_compiles_into_one_graph(any_backend, device, avg_factor):
    pred, target, weight = inputs(device)
    if isinstance(avg_factor, torch.Tensor):
        avg_factor = avg_factor.to(device)

    def step(pred, target, weight, avg_factor):
        # 2 * and .tanh() stand for the network and the rest of the losses
        return functional.sigmoid_focal_loss(2 * pred, target, weight, avg_factor=avg_factor).sum().tanh()

    compiled = torch.compile(step, fullgraph=True)
    for function in (step, compiled):
        leaf = pred.clone().requires_grad_()
        loss = function(leaf, target, weight, avg_factor)
        loss.backward()
        if function is step:
            eager_loss, eager_grad = loss.detach(), leaf.grad
    torch.testing.assert_close(loss.detach(), eager_loss)
    torch.testing.assert_close(leaf.grad, eager_grad)


@one_graph
@pytest.mark.skipif(focal_plugin.backend.INTERPRETING, reason='the compiler would trace through the interpreter')
def test_module_compiles_with_a_batch_of_another_size():
    """mmdet#11398, #11154, #11581: the number of anchors changes from image to image."""
    from focal_plugin.losses import FusedFocalLoss

    loss = FusedFocalLoss(alpha=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    compiled = torch.compile(loss, fullgraph=True)
    pred, target, weight = inputs()
    for rows in (N, N - 3, N - 5):
        ours = compiled(pred[:rows], target[:rows], weight[:rows], avg_factor=float(rows))
        torch.testing.assert_close(ours, loss(pred[:rows], target[:rows], weight[:rows], avg_factor=float(rows)))


def test_scripted_operator_has_a_gradient():
    importlib.import_module('focal_plugin.interop.dense')  # defines it
    pred, _, _ = inputs()
    target = torch.rand_like(pred)
    results = []
    for function in (
        lambda x: torch.ops.focal_plugin.sigmoid_focal_loss(x, target, 1.5, -1.0, 'mean'),
        lambda x: functional.sigmoid_focal_loss(x, target, gamma=1.5, alpha=None),
    ):
        leaf = pred.clone().requires_grad_()
        loss = function(leaf)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_works_below_a_dispatch_mode(any_backend, device):
    """Profilers, FLOP counters and activation checkpointing put one around a training step."""
    from torch.utils.flop_counter import FlopCounterMode

    pred, target, weight = inputs(device)
    with FlopCounterMode(display=False):
        functional.sigmoid_focal_loss(pred.requires_grad_(), target, weight).backward()
    assert pred.grad.isfinite().all()


def test_eps_is_that_of_mmdet():
    assert torch.finfo(torch.float32).eps == EPS


@pytest.mark.parametrize('name', ('focal', 'softmax_focal'))
def test_what_the_torch_backend_saves_is_shown_to_no_hook(name):
    """A checkpoint counts what is packed, and what a first loss computes to test a GPU is not computed again."""

    def asked(tensor):
        raise AssertionError

    spec = SPECS[name]
    problem = focal_problem(
        torch.randn(4, 5), torch.arange(4), 'torch', variant=name, parameters=list(spec.pack(**spec.defaults))
    )
    with torch.autograd.graph.saved_tensors_hooks(asked, asked):
        grad, _ = library.backward(problem, torch.ones(()), False)
    assert grad.abs().max() > 0


def test_no_gradient_asked_for_saves_nothing():
    pred, target, _ = inputs()
    with torch.no_grad():
        assert functional.sigmoid_focal_loss(pred.requires_grad_(), target).grad_fn is None
    assert functional.sigmoid_focal_loss(pred.detach(), target).grad_fn is None


class _SyncCheck(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails on the operations by which a program waits for a GPU."""

    WAITS = ('_local_scalar_dense', 'is_nonzero', 'equal', 'nonzero')

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITS:
            raise RuntimeError(f'{name} waits for the GPU')
        return function(*args, **(kwargs or {}))


@pytest.mark.triton
def test_no_operation_waits_for_the_gpu(any_backend, device):
    """What the Triton backend does around its kernels; on a GPU CUDA itself watches (set_sync_debug_mode)."""
    if any_backend != 'triton':
        pytest.skip('the CPU has nothing to wait for')
    pred, target, weight = inputs(device)
    pred.requires_grad_()
    avg_factor = torch.tensor(3.0, device=device)
    if device == 'cuda':
        torch.cuda.set_sync_debug_mode('error')
    try:
        with _SyncCheck():
            loss = functional.sigmoid_focal_loss(
                pred,
                target,
                weight,
                avg_factor=avg_factor,
                alpha=torch.full((C,), 0.3, device=device) if device == 'cuda' else 0.3,
            )
            loss.backward()
    finally:
        if device == 'cuda':
            torch.cuda.set_sync_debug_mode('default')


@one_graph
@pytest.mark.skipif(focal_plugin.backend.INTERPRETING, reason='the compiler would trace through the interpreter')
def test_vectors_compile_for_another_number_of_classes():
    """The second number of classes is symbolic to the compiler."""
    compiled = torch.compile(functional.sigmoid_focal_loss, fullgraph=True)
    for classes in (7, 5):
        pred, target, alpha = torch.randn(9, classes), torch.arange(9) % (classes + 1), torch.rand(classes)
        torch.testing.assert_close(
            compiled(pred, target, alpha=alpha), functional.sigmoid_focal_loss(pred, target, alpha=alpha)
        )


def traced_by_jit(function, *given):
    return torch.jit.trace(function, given, check_trace=False)


def traced_by_fx(function, *given):
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function)(*given)


@pytest.mark.parametrize('differentiates', (False, True), ids=('no gradient', 'a gradient'))
@pytest.mark.parametrize('traced', (traced_by_jit, traced_by_fx))
@pytest.mark.parametrize('reduction', ('none', 'mean'))
def test_a_trace_computes_the_loss_of_other_logits(any_backend, device, reduction, traced, differentiates):
    pred, target, weight = inputs(device)
    if traced is traced_by_fx and differentiates:
        pytest.skip('of a function with its backward inside: see test_opcheck')

    def loss(pred, target, weight):
        return functional.sigmoid_focal_loss(pred, target, weight, reduction=reduction).sum()

    program = traced(loss, pred.clone().requires_grad_(differentiates), target, weight)
    given = (pred.flip(1), target.flip(0), weight.flip(0))
    results = []
    for function in (loss, program):
        leaf = given[0].clone().requires_grad_(differentiates)
        value = function(leaf, *given[1:])
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0] if differentiates else value.detach()))
    torch.testing.assert_close(*results)


class Wrapped(torch.Tensor):
    """A tensor without memory of its own, as DTensor is."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner):
        self.held = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        unwrap = lambda t: t.held if isinstance(t, cls) else t  # noqa: E731
        wrap = lambda t: cls(t) if isinstance(t, torch.Tensor) else t  # noqa: E731
        args, kwargs = torch.utils._pytree.tree_map(unwrap, (args, kwargs or {}))
        return torch.utils._pytree.tree_map(wrap, function(*args, **kwargs))


@pytest.mark.parametrize('which', (0, 1, 2), ids=('pred', 'target', 'weight'))
def test_a_tensor_without_memory_of_its_own(any_backend, device, which):
    """The kernels see what it stands for, whichever operand it is."""
    given = list(inputs(device))
    expected = functional.sigmoid_focal_loss(*given, reduction='none')
    given[which] = Wrapped(given[which])
    value = functional.sigmoid_focal_loss(*given, reduction='none')
    torch.testing.assert_close(getattr(value, 'held', value), expected)


@pytest.mark.parametrize(
    'name, given',
    (
        ('class_balanced_focal_loss', dict(samples_per_class=range(1, C + 1))),
        ('sigmoid_focal_loss', dict(alpha=[0.1 * k for k in range(C)])),
        ('softmax_focal_loss', {}),
    ),
)
def test_fakes_have_no_values_and_leave_none(any_backend, device, name, given):
    """What is kept for later calls is made of real tensors only."""
    pred, target, weight = inputs(device)
    target, loss = target.clamp(max=C - 1), getattr(functional, name)
    with FakeTensorMode() as mode:
        fake = loss(*map(mode.from_tensor, (pred, target, weight)), reduction='none', **given)
    real = loss(pred, target, weight, reduction='none', **given)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)
