"""The command line: starts, watches and drives the daemons."""
