"""The remote API: the streams of an `API`, from another process or machine.

A server keeps a session for each client. A stream's messages are numbered and kept in a
ring until the client has read them, so that a connection may break and go on. Blocks
move as columns, whatever the codec; items are made where they are read.
"""
