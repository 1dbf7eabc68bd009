"""Trains one config with several classification losses and compares them; `--help` lists the arguments."""

from training.compare_losses import main

if __name__ == '__main__':
    raise SystemExit(main())
