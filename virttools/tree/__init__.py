"""Trees: the plan (values), and those who build, publish, scrub and remove by it (doers)."""
