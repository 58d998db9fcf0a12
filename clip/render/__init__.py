"""Text for other people's programs, made by pure functions from the table of machines: no I/O, no clock, no randomness."""
