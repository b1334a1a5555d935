"""``ataraxis demo``: what a laboratory needs, shown between real processes.

`ataraxis.demo.report` runs it, `ataraxis.demo.scene` says what is recorded, and
`ataraxis.demo.report` compares what is on disk with what the sources made.
"""
