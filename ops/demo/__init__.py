"""The main job, live: every step checked, not narrated (`./just demo`)."""
