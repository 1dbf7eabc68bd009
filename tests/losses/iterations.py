"""Iterations of the equalized focal loss: what a head hands it, and the definition in float64."""

import torch

import focal_plugin
from focal_plugin.losses import FusedEqualizedFocalLoss
from tests import oracle

N, C, GAMMA, ALPHA, SCALE = 60, 5, 2.0, 0.25, 8.0


def levels(iteration, rows=(N, N // 4)):
    """(pred, labels, weight) of each level of a head; class 4 is never a positive, class 3 seldom."""
    generator = torch.Generator().manual_seed(iteration)
    for n in rows:
        pred = torch.randn(n, C, generator=generator) * 2 - 1
        labels = torch.tensor([0, 1, 2, 0, C, C, C, 1, C, C])[torch.arange(n) % 10]
        labels[7] = 3
        yield pred, labels, torch.rand(n, generator=generator) + 0.5


class Definition:
    """The loss as arXiv 2201.02593 has it, a matrix of C columns at a time."""

    def __init__(self):
        self.gradients, self.gathered = torch.zeros(2, 2, C, dtype=torch.float64)

    @property
    def ratio(self):
        positive, negative = self.gradients
        return torch.where(positive + negative == 0, 1.0, (positive / negative).clamp(0, 1))

    def __call__(self, pred, labels, weight, avg_factor):
        """(loss, gradient), and the gradient is gathered."""
        exponent = GAMMA + SCALE * (1 - self.ratio)
        point = oracle.focal(pred.double(), oracle.dense_target(labels, C), exponent.numpy(), ALPHA)
        factor = (exponent / GAMMA) * weight[:, None].double() / (avg_factor + oracle.EPS)
        grad = torch.from_numpy(point.grad) * factor
        is_positive = torch.from_numpy(oracle.dense_target(labels, C)) == 1
        self.gathered[0] += (grad.abs() * is_positive).sum(0)
        self.gathered[1] += (grad.abs() * ~is_positive).sum(0)
        return (torch.from_numpy(point.value) * factor).sum(), grad

    def end(self):
        self.gradients += self.gathered
        self.gathered.zero_()


def check_iterations(device):
    """Of four iterations every loss, gradient, sum and ratio is the definition's."""
    loss, exact = FusedEqualizedFocalLoss(C).to(device), Definition()
    for iteration in range(4):
        expected = [exact(pred, labels, weight, 7.0) for pred, labels, weight in levels(iteration)]
        exact.end()
        inputs = [
            (pred.to(device).requires_grad_(), labels.to(device), weight.to(device))
            for pred, labels, weight in levels(iteration)
        ]
        losses = [loss(*each, avg_factor=7.0) for each in inputs]
        sum(losses).backward()
        for (pred, _, _), value, (exact_value, exact_grad) in zip(inputs, losses, expected, strict=True):
            torch.testing.assert_close(value.detach().cpu().double(), exact_value, rtol=1e-5, atol=0)
            torch.testing.assert_close(pred.grad.cpu().double(), exact_grad, rtol=2e-5, atol=1e-12)
        torch.testing.assert_close(loss.gradients.cpu(), exact.gradients, rtol=1e-5, atol=0)
        torch.testing.assert_close(loss.ratio.cpu().double(), exact.ratio, rtol=1e-5, atol=0)
    assert loss.ratio[4] == 0 and 0 < loss.ratio[3] < loss.ratio[0]


def check_gathered(device, layout):
    """Against the gradients themselves, which other tests hold to the oracle."""
    generator = torch.Generator().manual_seed(0)
    classes = 4100 if layout == 'more classes than a tile' else 9
    pred = torch.randn(2, 5, 7, classes, generator=generator)
    labels = torch.randint(0, classes + 1, (2, 5, 7), generator=generator)
    dense = torch.nn.functional.one_hot(labels, classes + 1)[..., :-1]
    if layout == 'an NCHW map':
        pred = pred.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    target = dense.float() * 0.6 if layout == 'a dense target' else labels
    ignored = {'ignore_index': 2} if layout == 'ignored rows' else {}
    statistics = torch.zeros(2, classes, dtype=torch.float64, device=device)
    leaf = pred.to(device).requires_grad_()
    loss = focal_plugin.functional.equalized_focal_loss(
        leaf, target.to(device), reduction='sum', ratio=torch.rand(classes, generator=generator),
        statistics=statistics, **ignored,
    )  # fmt: skip
    loss.backward(torch.tensor(3.0, device=device))
    size = leaf.grad.cpu().double().abs() / 3
    expected = torch.stack([(size * part).reshape(-1, classes).sum(0) for part in (dense, 1 - dense)])
    torch.testing.assert_close(statistics.cpu(), expected, rtol=1e-5, atol=1e-12)
