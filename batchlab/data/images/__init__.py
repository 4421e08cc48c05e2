"""Images: read from files, made into a task, augmented."""
