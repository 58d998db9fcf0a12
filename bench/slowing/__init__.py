"""The parts of bench/slowdown.py."""
