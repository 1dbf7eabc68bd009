"""What NVIDIA's tools, which Triton carries, say of a CUBIN."""

import re
import subprocess
import tempfile
from pathlib import Path


def said(tool: str, code: bytes, *options: str) -> str:
    """What `nvdisasm` or `cuobjdump` says."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, 'kernel.cubin')
        cubin.write_bytes(code)
        return output(getattr(knobs.nvidia, tool).path, *options, cubin)


def resources(code: bytes) -> dict[str, int]:
    """What its kernel takes of a GPU; spills are of a thread, its stack included."""
    used = re.search(
        r'REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)', said('cuobjdump', code, '--dump-resource-usage')
    )
    registers, stack, shared, local = map(int, used.groups())
    return {'registers': registers, 'shared (bytes)': shared, 'spills (bytes)': stack + local}


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
