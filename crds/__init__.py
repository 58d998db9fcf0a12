"""The resource types: what people declare, what is observed, what the parts tell each other. No I/O; imports nothing of ours."""
