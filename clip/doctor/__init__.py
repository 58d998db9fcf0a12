"""The doctor: what may be wrong with a cluster, and what to do about it.

Facts are collected first (``cluster`` from etcd, ``head`` from the head's files and ports), each with its own time-out; what they
mean is decided by checks, small pure functions over these facts.
"""
