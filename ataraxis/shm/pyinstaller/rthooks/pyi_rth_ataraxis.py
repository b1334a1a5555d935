"""Run before the main program of a frozen application: be a process of ataraxis's.

Nothing is imported where the application was started by a user. The words are those of
`ataraxis.shm.process`, and a test compares them.
"""

import sys

vars(sys)["ataraxis_starts_processes"] = True
if sys.argv[1:2] == ["--ataraxis-process"]:
    from ataraxis.shm.process import freeze_support

    freeze_support()
