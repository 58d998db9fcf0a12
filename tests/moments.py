"""Named moments of a move (see nodeagent/hooks.py), in their order."""

SOURCE = (
    "Connecting.before",
    "Connecting.after",
    "leave.connected",
    "leave.ahead",
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
"""At the source of a move that succeeds, in their order."""
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
STOP_ONLY = ("leave.ahead",)
"""Of these, in moves by stop only."""
POST_COPY_SOURCE = ("Serving.before", "Serving.after", "leave.severed")
"""In moves by post-copy also these, between leave.running and Gone."""
POST_COPY_DESTINATION = ("Fetching.before", "Fetching.after", "arrive.fetched")
"""Between arrive.resumed and Running."""
