"""Makes a Debian machine the head of a cluster: what ``mxctl head init`` does on it."""
