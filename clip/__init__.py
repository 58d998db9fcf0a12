"""Provisions machines. Today: builds the node image that the lab's nodes run from."""
