"""What runs say: statistics, charts, tables and the page."""
