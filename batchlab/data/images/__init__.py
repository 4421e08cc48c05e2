"""Images: reading files, building a task, augmentation."""
