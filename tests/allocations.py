"""What a step makes: the bytes that PyTorch allocates, and the tensors of each operator."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def allocations(step) -> list[int]:
    """Bytes of what PyTorch allocates (negative: frees) during a step, in its order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    return [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']


def allocated(step) -> int:
    """Bytes that PyTorch allocates during a step, frees not counted."""
    return sum(size for size in allocations(step) if size > 0)


class Made(TorchDispatchMode):
    """The tensors that are made: how many numbers the storage of each holds."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for each in results if isinstance(results, tuple) else [results]:
            if isinstance(each, torch.Tensor):
                self.kept[each.untyped_storage().data_ptr()] = each
        return results

    def sizes(self, *given):
        """Those of the tensors that were not given."""
        given = {tensor.untyped_storage().data_ptr() for tensor in given}
        made = (tensor for pointer, tensor in self.kept.items() if pointer not in given)
        return [tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in made]


class Largest(TorchDispatchMode):
    """The most bytes of a tensor that an operator makes, those as large as given ones left aside."""

    def __init__(self, given: list[torch.Tensor]) -> None:
        super().__init__()
        self.given = {tensor.numel() for tensor in given}
        self.most, self.of = 0, None

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.numel() not in self.given:
                size = min(each.numel() * each.element_size(), each.untyped_storage().nbytes())
                if size > self.most:
                    self.most, self.of = size, (operator, tuple(each.shape))
        return result
