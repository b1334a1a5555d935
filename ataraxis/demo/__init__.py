"""``ataraxis demo``: what a laboratory needs, shown between real processes.

`ataraxis.demo.show` runs it, `ataraxis.demo.scene` says what is recorded, and
`ataraxis.demo.report` compares what is on disk with what the sources made.
"""
