"""The numbers of a study, before any claim is judged."""
