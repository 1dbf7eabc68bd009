"""Importing this lets a tool import the package that it lies beside, where none is installed."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec('focal_plugin') is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
