"""Who is served when: a pure decision tree and the one task that runs it."""
