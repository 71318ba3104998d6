"""Hyper: a Docker-compatible container engine with one virtual machine per container."""

__version__ = "0.1.0"
