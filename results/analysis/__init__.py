"""What the long table says: means, intervals, tests, ranks."""
