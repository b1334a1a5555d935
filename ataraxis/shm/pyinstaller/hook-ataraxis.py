"""Collect all of ataraxis but its test suites; read by PyInstaller when it builds."""

from PyInstaller.utils.hooks import collect_submodules, copy_metadata

# A submodule of these that cannot be imported lacks an optional package.
hiddenimports = collect_submodules(
    "ataraxis",
    filter=lambda name: (
        not name.startswith(
            ("ataraxis.testing", "ataraxis.demo", "ataraxis.shm.pyinstaller")
        )
    ),
    on_error="ignore",
)
# What kernels import by the NumPy C-API, and functions of the main program travel by.
hiddenimports += ["cloudpickle", "numpy.random"]
excludedimports = ["matplotlib", "pytest", "hypothesis"]
# Entry points: sources of data, the xarray engine.
datas = copy_metadata("ataraxis")
