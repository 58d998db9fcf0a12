"""The store: the only way to read or change the cluster's state."""
