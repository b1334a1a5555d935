"""Viewer: what runs, while it runs, in a browser.

A page reads nothing itself. One process has at most one lossy reader of each stream,
its tap, and cuts the samples into columns: minimum and maximum of so many of them. So a
stuck page, or a killed server, changes nothing for any other process.
"""
