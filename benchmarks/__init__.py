"""What the methods are compared on: one data set per file, its file name is its name."""
