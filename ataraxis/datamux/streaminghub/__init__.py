"""The dialect of StreamingHub: its metadata, its settings and its small names."""
