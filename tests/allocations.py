"""What a step makes: the bytes that PyTorch allocates, and the tensors of each operator."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


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
