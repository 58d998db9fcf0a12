"""A whole cluster on one machine: nodes that are namespaces, with real etcd, real agents and real CRIU."""
