"""The command line: it resolves settings, builds what a command needs, and turns errors into exit codes. No work is done here."""
