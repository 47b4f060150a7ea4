"""Which layer of the student meets which layer of the teacher, and by which methods."""
