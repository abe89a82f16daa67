"""What the specs of several losses share: inputs, calls, tolerances and differences from hosts."""
