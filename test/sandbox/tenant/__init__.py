"""The data of one HubEx tenant, in memory, and the seed it grows from. Knows nothing of HTTP."""
