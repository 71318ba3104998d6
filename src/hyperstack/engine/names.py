"""Names for containers without one: an adjective and something of computing's past."""

from __future__ import annotations

import secrets

from hyperstack.engine.table import Table

_LEFT = """
able agile airy alert amber ample apt azure bold brave bright brisk calm candid chief civil
clean clear clever cool cosmic crisp curious daring deft eager early easy elegant epic exact
fair fast fine firm fleet fluent fond frank free fresh gentle glad golden grand happy hardy
honest humble ideal jolly keen kind lively loyal lucid lucky mellow merry mighty modest neat
nimble noble patient placid polite prime proud quick quiet rapid ready rustic sage serene sharp
silent sleek smart snug solid spry stable steady sturdy sunny swift tender tidy tranquil true
trusty upbeat vivid warm wise witty young zealous zesty
""".split()
_RIGHT = """
abacus altair amdahl antikythera arithmometer babbage backus baudot bell boole burks byron
cardan clarke colossus cray curta deuce dijkstra eckert edsac edvac eniac ferranti floyd gauss
goedel hamilton hamming harvard hollerith hopper illiac iverson jacquard johnson kilburn knuth
lamport leibniz liskov lovelace mauchly mcarthy meitner minsky morse napier naur neumann nova
oughtred pascal perlis pilot post ritchie rozsa scheutz shannon sketchpad strachey sutherland
thompson torres transit turing univac vax whirlwind wiener wilkes wirth zuse
""".split()


def free(table: Table) -> str:
    """Return a name that no container has, nor one that is about to be."""
    for attempt in range(1000):
        name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 * (attempt + 1)))
        if not table.taken(name):
            return name
    return f"container_{secrets.token_hex(6)}"
