"""One training: loop, state, steps, loss weights."""
