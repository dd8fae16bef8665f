"""Which stages, in which order: pure functions over offers, paths and durations."""
