"""Links: streams between hosts, whatever breaks.

Sans-io state machines (`session`, `outlet`, `inlet`, `spool`) above carriers of bytes.
The ring is the window: a frame leaves it when the other host has it, or the spool has.
"""
