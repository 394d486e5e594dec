"""What becomes of signals over rounds: in the shared network, in clients', and between clients."""
