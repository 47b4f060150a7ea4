"""Files, checkpoints, run folders."""
