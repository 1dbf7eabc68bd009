"""Runs a command and writes down the most memory that its process held.

    python -m tools.training.peak FILE COMMAND ...

FILE gets the bytes (VmHWM). The exit status is the command's.
"""

import os
import subprocess
import sys
from pathlib import Path


def main(file: str, *command: str) -> int:
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    Path(file).write_text(str(1024 * usage.ru_maxrss))
    return os.waitstatus_to_exitcode(status)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
