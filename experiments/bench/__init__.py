"""One job, timed by every way of doing it: ours, bare PyTorch loops, and other simulators."""
