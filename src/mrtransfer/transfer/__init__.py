"""How knowledge moves: freezing and methods."""
