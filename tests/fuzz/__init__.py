"""Seeded mutations of all that is read: what a stranger may send is refused in a line, or does no harm."""
