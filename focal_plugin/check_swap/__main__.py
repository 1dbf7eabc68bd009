import sys

from focal_plugin.command import main

raise SystemExit(main(['check-swap', *sys.argv[1:]]))
