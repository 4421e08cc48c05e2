"""Everything that runs in a child of a sweep, with torch; what parents and children say to each other lies here too."""
