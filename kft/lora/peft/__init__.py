"""Adapters in PEFT's files."""
