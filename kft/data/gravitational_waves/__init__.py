"""Gravitational waves: simulated detector strain as images."""
