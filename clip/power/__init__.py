"""Power of machines: one file a driver, and the switchboard that acts on what is asked for in etcd."""
