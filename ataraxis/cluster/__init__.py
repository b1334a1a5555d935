"""Cluster: the hosts of a lab, and the streams mirrored between them."""
