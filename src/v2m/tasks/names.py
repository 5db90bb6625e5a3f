"""Names with one meaning everywhere: those of the tasks, and of the files of a saved model."""

CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
"""The tasks. Classification is also that of folders that name no task, such as timm's."""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
"""The files of a saved model."""
SAVING = ".saving-"
"""How the name of a folder begins in which both are written before they are renamed into place."""
