"""Simulated energy use of buildings in two cities."""
