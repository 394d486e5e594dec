"""Playing a strategy on the server: asking clients, and folding their replies as they come."""
