"""The words of the command line, a module for each."""
