"""What can be known before training: checks, is distillation on, cost."""
