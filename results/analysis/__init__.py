"""Analysis of the long table: means, intervals, tests."""
