"""How machines join: whoever shows a good token gets a certificate, at once or when a person has approved it."""
