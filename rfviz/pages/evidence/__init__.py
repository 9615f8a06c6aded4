"""Pages that show what was computed before and is kept in the repository."""
