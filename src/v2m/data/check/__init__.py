"""What the checks of all kinds of datasets share; each kind's own part is the ``check.py`` of its room."""
