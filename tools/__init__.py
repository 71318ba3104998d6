"""What ./quickstart and ./check use."""
