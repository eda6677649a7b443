"""What a cluster's controllers would do, as pure functions of what the API shows: ``reconcile(view, key) -> writes``."""
