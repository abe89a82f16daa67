"""Parts shared by the specs of several losses: inputs, calls, tolerances and differences from hosts."""
