"""Requests that nobody means, by the thousand, against the API: `./just fuzz`."""
