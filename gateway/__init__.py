"""The only door: keys, limits, routing and balancing over the daemons' replicas."""
