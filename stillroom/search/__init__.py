"""Which compression keeps the limits of a device."""
