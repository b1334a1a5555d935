"""A log as an xarray dataset or tree: the engine ``"ataraxis"``."""
