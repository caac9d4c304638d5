"""The platform as a whole, in process and over HTTP."""
