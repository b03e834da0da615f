"""``python -I -m agent``: ``interlock-agent``, as its service starts it."""

from agent.cli import main

main()
