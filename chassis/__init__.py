"""What every service shares. It imports nothing from `services`."""
