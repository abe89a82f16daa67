"""Fast forms of shared arithmetic for plain eager mode. The functions in ``ops`` call them; see ``switch``."""
