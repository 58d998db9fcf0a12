"""Pure decisions: a snapshot in, a plan out. No await, clock, randomness or I/O."""
