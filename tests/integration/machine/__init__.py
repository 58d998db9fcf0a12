"""A state machine drives the real reconciler and the real agents, in virtual time, through everything that can go wrong."""
