"""Images with a class each: folders, tars, tables, datasets that come by name."""
