"""Importing this ends a tool with a sentence where mmdet is not installed."""

import importlib.util
import sys

if importlib.util.find_spec('mmdet') is None:
    sys.exit('mmdet is not installed in this Python: run `bash tools/setup_env.sh`, then use .venv/bin/python')
