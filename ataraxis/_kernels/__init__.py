"""The compiled half: pointers, integers and structs; knows nothing of ataraxis.

Nothing here is public.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

if importlib.util.find_spec("ataraxis._kernels.lock") is None:
    raise ImportError(
        f"the kernels of ataraxis are not in {Path(__file__).parent}. Python found the "
        "source folder before the installed package, because the current folder comes "
        "first on its path. Do one of: run from another folder; run 'python -P ...'; "
        "use the console scripts (ataraxis, pytest); or install for development with "
        "'pip install --no-build-isolation -e .'. "
        "If ataraxis was never installed: 'pip install .'"
    )
