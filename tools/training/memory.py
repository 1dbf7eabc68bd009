"""Memory, as Linux tells it."""

import re
from contextlib import suppress
from pathlib import Path


def resident(name: str) -> int:
    """Bytes of this process: VmRSS, what is held now, or VmHWM, the most that was."""
    return _bytes('/proc/self/status', name)


def reset_peak() -> None:
    """Has VmHWM begin anew at VmRSS, where the kernel lets a process do that."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')


def available() -> int:
    """Bytes that processes can still get."""
    return _bytes('/proc/meminfo', 'MemAvailable')


def _bytes(file: str, name: str) -> int:
    return 1024 * int(re.search(rf'{name}:\s+(\d+) kB', Path(file).read_text())[1])
