"""A cluster in virtual time under the very decisions of the real one. Pure: equal scenario, equal seed, equal outcome."""
