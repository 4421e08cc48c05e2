"""The command line: one module per word; words become calls."""
