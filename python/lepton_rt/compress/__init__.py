"""Compression: rewrites of a Graph into a smaller one with (nearly) the same meaning."""
