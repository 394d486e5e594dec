"""Local training in plain PyTorch, which knows no Flower."""
