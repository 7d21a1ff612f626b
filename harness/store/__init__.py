"""Where results lie: cells, models, checkpoints, logs."""
