"""Processes, devices, precision, signals."""
