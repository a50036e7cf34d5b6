"""Media files as they come: opened, as far as they can be, and explained."""
