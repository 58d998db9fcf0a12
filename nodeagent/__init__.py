"""Acts on one node: runs jobs, freezes, sends, receives and restores them, reports load. Never decides."""
