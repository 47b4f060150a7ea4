"""Boxes: geometry, suppression, assignment."""
