"""The providers, one explicit list. A new one is a file and a line here."""
