"""Parts of bench/storm.py."""
