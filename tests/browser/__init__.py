"""The shop as people see it: in Chromium, in front of services that are processes, and that are really stopped."""
