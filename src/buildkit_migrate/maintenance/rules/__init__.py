"""The rules, by what they are about. Each is a pure function from facts to findings."""
