"""What people see of a task: a module for each, with what ``view.py`` writes down."""
