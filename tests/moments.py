"""Named moments of a move (see nodeagent/hooks.py), in their order."""

SOURCE = (
    "Connecting.before",
    "Connecting.after",
    "leave.connected",
    "Freezing.before",
    "Freezing.after",
    "leave.streamed",
    "Sent.before",
    "Sent.after",
    "leave.end_sent",
    "leave.running",
    "Gone.before",
    "Gone.after",
)
"""Moments at the source of a move that succeeds, in their order."""
DESTINATION = (
    "Preparing.before",
    "Preparing.after",
    "arrive.prepared",
    "Receiving.before",
    "Receiving.after",
    "arrive.received",
    "Restoring.before",
    "Restoring.after",
    "arrive.restored",
    "Committing.before",
    "Committing.after",
    "arrive.claimed",
    "Committed.before",
    "Committed.after",
    "arrive.resumed",
    "Running.before",
    "Running.after",
)
