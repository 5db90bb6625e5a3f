"""Frozen features: they are computed once, kept in files, and probed."""
