"""Files, checkpoints, run folders and the software environment."""
