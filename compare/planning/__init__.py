"""The network planner's page: what to store at each site, what it buys, and how sure that is."""
