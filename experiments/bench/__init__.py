"""Time one job with our engines, bare PyTorch loops and other simulators."""
