"""Whole flows, from a request to what is on disk, and through whatever may break on the way."""
