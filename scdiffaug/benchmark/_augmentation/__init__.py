"""The augmentation benchmark."""
