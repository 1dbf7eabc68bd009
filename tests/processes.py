"""Python in a process of its own."""

import os
import subprocess
import sys


def run(code: str, **environment) -> str:
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
