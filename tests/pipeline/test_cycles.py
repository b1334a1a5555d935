"""The garbage collector takes attachments apart in any order: nothing segfaults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from ataraxis import SharedMemoryArray

PROGRAM = """
import gc, sys
from ataraxis.shm import Segment
loop = [Segment.attach("pose", context=sys.argv[1])]
loop.append(loop)
del loop
gc.collect()
"""


def test_an_attachment_in_a_cycle_ends_before_its_mapping(tmp_path: Path):
    tmp_path.chmod(0o700)
    zeros = np.zeros(4)
    with SharedMemoryArray.create_array("pose", zeros, context=tmp_path) as pose:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, str(tmp_path)], timeout=60
        )
        assert done.returncode == 0
        assert pose._participant.sweep() == 0  # its slot was given back
