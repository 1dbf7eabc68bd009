"""A smaller call with the same fault."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from tests.campaign.call import Call
from tests.campaign.compare import faults
from tests.campaign.tensors import in_memory


def shrunk(call: Call, backend: str, threads: bool) -> Call:
    """The call with whatever it needs not to fail in the same way: arguments at their defaults, one row, no layouts."""
    wanted = _head(faults(call, backend, threads))
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(call):
            try:
                same = _head(faults(smaller, backend, threads)) == wanted
            except Exception:  # a step that does not fit its other arguments
                same = False
            if same:
                call, progress = smaller, True
                break
    return call


def _head(found: list[str]) -> str:
    """The kind of a fault: an exception with its message, else what is wrong and whether it is NaN."""
    if not found or found[0].startswith('raises'):
        return found[0] if found else ''
    return found[0].partition(':')[0] + ('nan' if ' nan ' in found[0] else '')


def _smaller(call: Call) -> Iterator[Call]:
    plain = call.requires == () and call.second is None
    for changed in (
        {'by_class': False, 'loss_weight': 1.0},
        {'wide': False},
        {'way': 'backward'},
        {'statistics': False},
        {'requires': ()},
        {'second': None},
        {'weight': None},
        {'ignore_index': None},
        {'reduction': 'sum', 'avg_factor': None, 'upstream': torch.ones((), dtype=call.arithmetic)},
        *({'given': {key: v for key, v in call.given.items() if key != name}} for name in call.given),
    ):
        if any(_differs(getattr(call, name), value) for name, value in changed.items()):
            yield replace(call, **changed)
    for name in ('pred', 'weight', 'upstream'):
        value = getattr(call, name)
        if value is not None and call.layouts.get(name, 'contiguous') != 'contiguous':
            layouts = {key: each for key, each in call.layouts.items() if key != name}
            yield replace(call, **{name: in_memory(value).contiguous()}, layouts=layouts)
    if plain and call.pred.dim() == 2 and call.pred.size(0) > 1 and call.variant != 'mask_focal':
        for half in (slice(0, call.pred.size(0) // 2), slice(call.pred.size(0) // 2, None)):
            yield from _part(call, half)


def _part(call: Call, rows: slice) -> Iterator[Call]:
    """Some of the rows, where every argument can be cut."""
    n = call.pred.size(0)

    def cut(value):
        if isinstance(value, tuple):
            return tuple(map(cut, value))
        return value[rows] if value is not None and value.dim() and value.size(0) == n else value

    if call.weight is None or call.weight.size(0) in (1, n):
        yield replace(
            call, pred=cut(call.pred), target=cut(call.target), weight=cut(call.weight), upstream=cut(call.upstream)
        )


def _differs(a, b) -> bool:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return a is not b and not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.equal(b))
    return a is not b and a != b
