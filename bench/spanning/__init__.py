"""The parts of bench/makespan.py."""
