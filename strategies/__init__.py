"""How models become one, and what that asks of a client's loss.

A strategy is two halves side by side: what the server does, on Flower's Strategy, and what it asks
of a client's step, in plain torch (`proximal.py` is FedProx's).
"""
