"""Segmentation of images into objects by a model that is prompted."""
