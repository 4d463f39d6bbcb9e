"""The embedding benchmark."""
