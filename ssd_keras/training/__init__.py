"""Training runs: recipe, run folder, optimizer, callbacks."""
