"""What GPUs can do per second, and which of it bounds a kernel.

Bandwidths and clocks are the makers' data sheets' (boost clocks; H100: 1.755 GHz, which it holds under load), results per
clock and multiprocessor those of the arithmetic throughput table in NVIDIA's CUDA C++ Programming Guide, and of AMD's
architecture white papers: 4 vector units of 16 lanes a compute unit, transcendental functions at a quarter of the rate.
"""

from dataclasses import dataclass

# What kernels are compiled for: Triton's backend, its name there, lanes of a warp.
ARCHS = {f'sm_{n}': ('cuda', n, 32) for n in (75, 80, 86, 89, 90, 100, 120)}
NVIDIA = tuple(ARCHS)
ARCHS |= {name: ('hip', name, 64) for name in ('gfx90a', 'gfx942', 'gfx950')}
# What NVRTC 12 compiles for, while the newest versions of Triton's disassembler don't read it.
OLDER = ('sm_60', 'sm_70')
# What a copy reaches of the data sheet's bandwidth: an H100 copies 3.0e12 bytes per second of 3.35e12.
REACHED = 0.9


@dataclass(frozen=True)
class GPU:
    """A card.

    Attributes:
        arch: what its kernels are compiled for.
        bandwidth: of the memory, bytes per second, by the data sheet.
        clock: Hz.
        units: multiprocessors or compute units.
        issue, fp32, integer, mufu: lanes per clock and unit.
        device: what torch calls the card.
    """

    name: str
    arch: str
    bandwidth: float
    clock: float
    units: int
    issue: int = 128
    fp32: int = 128
    integer: int = 64
    mufu: int = 16
    device: str = ''

    def seconds(self, moved: float, issue: float, fp32: float, integer: float, mufu: float) -> dict[str, float]:
        """What each bound alone would take, given bytes, issue slots and instructions of each kind (of a thread each)."""
        slots = {'issue': issue / self.issue, 'FP32': fp32 / self.fp32}
        slots |= {'integer': integer / self.integer, 'MUFU': mufu / self.mufu}
        by_unit = {name: cycles / (self.units * self.clock) for name, cycles in slots.items()}
        return {'memory': moved / (REACHED * self.bandwidth), **by_unit}


GPUS = (
    GPU('T4', 'sm_75', 320e9, 1.59e9, 40, fp32=64, device='Tesla T4'),
    GPU('A100 40GB SXM', 'sm_80', 1555e9, 1.41e9, 108, fp32=64, device='NVIDIA A100-SXM4-40GB'),
    GPU('A100 80GB SXM', 'sm_80', 2039e9, 1.41e9, 108, fp32=64, device='NVIDIA A100-SXM4-80GB'),
    GPU('RTX 3090', 'sm_86', 936e9, 1.695e9, 82, device='NVIDIA GeForce RTX 3090'),
    GPU('RTX 4090', 'sm_89', 1008e9, 2.52e9, 128, device='NVIDIA GeForce RTX 4090'),
    GPU('H100 SXM', 'sm_90', 3352e9, 1.755e9, 132, device='NVIDIA H100 80GB HBM3'),
    GPU('B200', 'sm_100', 8000e9, 1.965e9, 148, device='NVIDIA B200'),
    GPU('RTX 5090', 'sm_120', 1792e9, 2.407e9, 170, integer=128, device='NVIDIA GeForce RTX 5090'),
    GPU('MI250X (one die)', 'gfx90a', 1638e9, 1.7e9, 110, issue=64, fp32=64),
    GPU('MI300X', 'gfx942', 5300e9, 2.1e9, 304, issue=64, fp32=64, device='AMD Instinct MI300X'),
)
