"""Stand-ins with knobs for what needs root or other machines; each passes the contract tests of the real thing."""
