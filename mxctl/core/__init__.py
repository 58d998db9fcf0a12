"""What the verbs share: the command group, the connection, what a person's words mean, waiting, and how failures are told."""
