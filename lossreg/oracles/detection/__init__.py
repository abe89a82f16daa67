"""Float64 references of the losses for detection."""
