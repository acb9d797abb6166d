"""stowstore beside the clients it could be replaced by, measured in one run: ``python -m benchmarks --help``."""
