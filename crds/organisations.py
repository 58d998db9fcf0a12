"""The organisations that certificates of the data channel name. The common name is that of the holder itself."""

NODES = "mx:nodes"
"""Agents; the common name is the node's."""
ADMINS = "mx:admins"
"""People who may do everything."""
