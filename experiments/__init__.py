"""What we ask, and what came out: studies, command line, report. Never ships to a device."""
