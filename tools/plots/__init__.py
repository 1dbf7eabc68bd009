"""Pictures and tables of losses, benchmarks and training runs."""
