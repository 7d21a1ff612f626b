"""One file a race: what is ours beside what one would use instead."""
