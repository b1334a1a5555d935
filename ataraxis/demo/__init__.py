"""``ataraxis demo``: record a rig in real processes, and check the recording.

`ataraxis.demo.scene` describes what is recorded; `ataraxis.demo.report` records it, and
compares the files with the sources.
"""
