"""A log in other formats: npz, NWB, Zarr and XDF."""
