"""From sections of a recipe to things, and what a run does with them."""
