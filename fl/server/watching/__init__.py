"""What watches rounds and changes no result: callbacks, and the measurement of signals."""
