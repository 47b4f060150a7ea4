"""Recipes: sections, types, defaults, checks, plug-ins."""
