"""The command `focal-plugin`."""

from __future__ import annotations
import argparse
import importlib.util
from collections.abc import Sequence

from focal_plugin.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: its name and what follows it; by default those of the command line.

    Returns:
        The exit status. Wrong usage ends the process with 2 and a sentence.
    """
    parser = argparse.ArgumentParser('focal-plugin', description='Fused focal losses for MMDetection.')
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    subparsers = parser.add_subparsers(required=True, metavar='COMMAND')
    if importlib.util.find_spec('mmdet') is None:
        parser.error('mmdet is not installed here: install mmdet 3.3 or onedl-mmdetection 3.5')
    from focal_plugin.check_swap import command

    command.add_to(subparsers)
    args = parser.parse_args(arguments)
    return args.run(args)
