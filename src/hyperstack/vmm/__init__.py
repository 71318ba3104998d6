"""Virtual machine monitors: the seam is in ``base``, one package per driver."""

from hyperstack.vmm.choice import DefaultChoice, choose_default, drivers

__all__ = ["DefaultChoice", "choose_default", "drivers"]
