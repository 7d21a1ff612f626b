"""Fast operations on feature banks: nearest neighbours, feature editing, greedy coreset."""
