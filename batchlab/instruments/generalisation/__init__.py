"""What a model knows of examples that it has not learnt from, and what it knows by heart."""
