"""What every test in the repository can ask for."""

pytest_plugins = ["tests.databases"]
