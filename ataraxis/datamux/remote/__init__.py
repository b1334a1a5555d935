"""The remote API: the streams of an `API`, from another process or machine.

A server keeps a session for each client. The messages of a stream are numbered and kept
in a ring until the client has read them, so that a broken connection can be resumed.
Blocks are sent as columns with every codec; items are made on the client.
"""
