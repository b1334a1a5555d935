"""Cluster: this host and the others of the lab, and the streams mirrored between them."""
