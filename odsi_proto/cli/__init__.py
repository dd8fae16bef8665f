"""The command line: parses, calls, prints. No logic, and nothing heavy before a command needs it."""
