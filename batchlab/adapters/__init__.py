"""What the trainers of other packages are given, as the fields of a Task."""
