"""Chat: one honest dispatcher over many providers, and a run record for every call."""
