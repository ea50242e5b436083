"""What the machine's state allows: rules over readings, decided without clock, sensor or side effect."""
