"""CPU time of containers: what the host counts for their machine, divided as its guest counts.

A guest counts the ticks of its clock, also those in which the host gave its CPU to others or held
it back (``--cpus``); the host knows the machine alone. So what a machine has used since somebody
looked last goes to its containers by what the guest has counted for each meanwhile. One that is
alone has all of it. Figures never go back, whoever comes and leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Account:
    """One machine's time, as far as it has been given out; all figures are microseconds.

    Containers are known by the handles of their first processes: each start counts anew.
    """

    used: int = 0
    """Of the host's figure, what has been given out."""
    counted: dict[int, int] = field(default_factory=dict)
    """What the guest had counted for each container then."""
    given: dict[int, int] = field(default_factory=dict)

    def settle(self, used: int, counted: Mapping[int, int]) -> None:
        """Give out what the machine has used since: *used* by the host, *counted* by the guest.

        None of several gets more than was counted for it: the rest is the machine's own work, and
        that of containers which have left it.
        """
        spent = max(0, used - self.used)
        grown = {c: max(0, now - self.counted.get(c, 0)) for c, now in counted.items()}
        whole = sum(grown.values())
        if len(grown) > 1 and not whole:
            return
        for container, own in grown.items():
            share = spent if len(grown) == 1 else min(own, spent * own // whole)
            self.given[container] = self.given.get(container, 0) + share
            self.counted[container] = self.counted.get(container, 0) + own
        self.used = max(self.used, used)
        for gone in self.given.keys() - grown.keys():
            del self.given[gone], self.counted[gone]
