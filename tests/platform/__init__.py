"""The platform as a whole in one process: four applications, real databases, and faults where a test wants them."""
