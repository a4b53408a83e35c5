"""Classical methods and certified bounds."""
