"""What a sweep shows while it runs and when it has ended."""
