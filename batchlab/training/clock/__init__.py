"""Training seconds, with measuring and waiting charged to nobody."""
