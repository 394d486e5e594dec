"""What worker processes and their parent share: memory without a name, and a clock."""
