"""What is solved, and the judge: libraries, networks, channels, demand, instances, solutions."""
