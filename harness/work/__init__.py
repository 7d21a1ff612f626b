"""A cell is done: images, features, fit, scores, metrics, rows."""
