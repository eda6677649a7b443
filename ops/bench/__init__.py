"""Figures from real runs (`./just bench`): real hub, cloud, leaf, daemon, containers.  Each row is printed as JSON too."""
