"""Makes a Linux machine that runs already a node, and undoes that: what ``mxctl join`` and ``mxctl leave`` do on it."""
