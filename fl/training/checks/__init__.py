"""What is looked at before anything is trained: whether it fits, and whether a loss is one."""
