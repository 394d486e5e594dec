"""Normalizers: a family of BatchNorms of our own, and others on PyTorch's kernels."""
