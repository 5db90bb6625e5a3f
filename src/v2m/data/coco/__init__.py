"""Images with objects: boxes and masks in COCO's format."""
