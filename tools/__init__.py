"""What ./dev runs besides other people's tools: the test run with its gates, the mutation job. Never in the wheel."""
