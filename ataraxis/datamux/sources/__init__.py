"""Devices and formats, one file each."""
