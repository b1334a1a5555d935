"""The log: every frame to disk, at the disk's speed, and back as arrays."""
