"""Packages that are not needed to import ataraxis, imported at use."""

from ataraxis.log.optional import need

__all__ = ["need"]
