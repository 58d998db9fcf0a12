"""How a controller is run: declarations, the queue, the workers and the one dispatcher of outcomes.

The idea is kopf's and controller-runtime's: a controller is a function of a *key*. It is told that something about the key may
have changed, never what; it reads everything anew, acts, and says how it ended. All knowledge about waiting, repeating and failing
is here, so that a controller holds decisions only.
"""
