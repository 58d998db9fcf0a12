"""Decides: reads the cluster, plans purely, writes placements and statuses."""
