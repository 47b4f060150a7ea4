"""A run from beginning to end, several seeds, a finished run opened again."""
