"""What operators are tried with, and how far results are from those that they should be."""

import torch


def error(found, expected):
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def odd_values(*shape, seed=0):
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan])
    noise = torch.Generator().manual_seed(seed)
    return values[torch.randint(len(values), shape, generator=noise)]
