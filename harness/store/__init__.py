"""Results in a folder: cells, models, checkpoints, logs."""
