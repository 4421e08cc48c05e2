"""What a study says in numbers before any claim is judged."""
