"""The methods that are compared, each in the file of its name; `parts` is shared."""
