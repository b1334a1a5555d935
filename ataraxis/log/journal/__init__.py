"""The journal: append-only files of frames, their index, and how they are read."""
