"""A whole Skerry on one machine, made of the real processes: what the demo, the benchmarks and the chaos runs stand on."""
