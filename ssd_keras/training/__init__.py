"""Training runs: recipes, run folders, optimizers and callbacks."""
