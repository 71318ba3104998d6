"""Programs that use Docker as its users do, through their clients, and fail by an exception.

Each is run as ``python -m tests.conformance.clients.NAME`` with ``DOCKER_HOST`` naming any engine
that has the images: this one in the tests, dockerd by hand. Published ports are looked for on
127.0.0.1, so it runs in the engine's network namespace.
"""
