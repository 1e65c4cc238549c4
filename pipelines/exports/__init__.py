"""Copies of the published shelves for storefronts. Who reads one sees one whole version, the old one or the new one.

Each kind has a function that takes what the shop file says of it and a `Version`, replaces the version that is there, and may be
run again. Nothing reads the clock: what a version is called comes from the night and the run.
"""
