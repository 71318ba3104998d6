"""Logs of containers: files, rotation, readers, and the drivers that send lines elsewhere."""
